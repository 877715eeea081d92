"""The routes that the plugin brings."""

from .admin import Reload, ReloadedProvider, admin_router
from .gateway import gateway_router

__all__ = ["Reload", "ReloadedProvider", "admin_router", "gateway_router"]
