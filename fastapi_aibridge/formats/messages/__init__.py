"""Anthropic Messages (https://docs.anthropic.com/en/api/messages and .../messages-streaming)."""

from __future__ import annotations

from ..rounds import RoundsFormat
from . import rounds as _rounds
from .observer import observer
from .request import parse, read

name = "messages"
rounds: RoundsFormat = _rounds

__all__ = ["name", "observer", "parse", "read", "rounds"]
