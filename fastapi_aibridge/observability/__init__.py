"""What operators see: metrics and spans."""

from .metrics import Metrics

__all__ = ["Metrics"]
