"""Who asked what at which cost: records, and where they are kept."""

from .jsonform import record_json
from .memory import MemoryRecorder
from .recorder import InterceptionQuery, InterceptionStore, InvalidCursor, Page, Recorder
from .records import (
    Ending,
    Facts,
    Interception,
    InterceptionRecord,
    Prompt,
    ProviderObject,
    Status,
    Thought,
    TokenUsage,
    ToolUsage,
)

__all__ = [
    "Ending",
    "Facts",
    "Interception",
    "InterceptionQuery",
    "InterceptionRecord",
    "InterceptionStore",
    "InvalidCursor",
    "MemoryRecorder",
    "Page",
    "Prompt",
    "ProviderObject",
    "Recorder",
    "Status",
    "Thought",
    "TokenUsage",
    "ToolUsage",
    "record_json",
]
