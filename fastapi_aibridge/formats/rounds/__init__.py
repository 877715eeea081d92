"""Injected tools, format by format: several upstream messages woven into one, without I/O."""

from .rounds import Held, Memory, Part, Result, Rounds, RoundsFormat, Tool, ToolCall, Turn

__all__ = ["Held", "Memory", "Part", "Result", "Rounds", "RoundsFormat", "Tool", "ToolCall", "Turn"]
