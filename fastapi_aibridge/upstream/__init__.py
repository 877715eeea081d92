"""How providers are reached."""

from .client import UpstreamClient

__all__ = ["UpstreamClient"]
