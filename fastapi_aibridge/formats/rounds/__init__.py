"""Injected tools, format by format: several upstream messages woven into one, without I/O."""

from .rounds import PREFIX, Held, Memory, Part, Result, Rounds, RoundsFormat, Tool, ToolCall, Turn

__all__ = ["PREFIX", "Held", "Memory", "Part", "Result", "Rounds", "RoundsFormat", "Tool", "ToolCall", "Turn"]
