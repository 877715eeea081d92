"""The routes that the plugin adds to an app."""

from .access import AdminAccess
from .admin import add_admin_routes
from .audit import add_audit_routes
from .budgets import add_budget_routes
from .client_keys import add_client_key_routes
from .gateway import add_gateway_route
from .health import add_health_routes
from .initiators import add_initiator_routes
from .managed import add_managed_routes
from .me import add_me_routes
from .workers import add_worker_routes

__all__ = [
    "AdminAccess",
    "add_admin_routes",
    "add_audit_routes",
    "add_budget_routes",
    "add_client_key_routes",
    "add_gateway_route",
    "add_health_routes",
    "add_initiator_routes",
    "add_managed_routes",
    "add_me_routes",
    "add_worker_routes",
]
