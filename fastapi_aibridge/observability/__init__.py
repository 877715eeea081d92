"""Observability for operators: metrics, log lines and spans."""

from .lines import InterceptionLines
from .metrics import Metrics

__all__ = ["InterceptionLines", "Metrics"]
