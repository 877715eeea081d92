"""The routes that the plugin brings."""

from .admin import Reload, ReloadedProvider, add_admin_routes
from .gateway import add_gateway_route
from .health import add_health_routes

__all__ = ["Reload", "ReloadedProvider", "add_admin_routes", "add_gateway_route", "add_health_routes"]
