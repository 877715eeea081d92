"""Records of interceptions (initiator, content, usage and cost) and the recorders that store them."""

from .jsonform import record_json
from .owners import MemoryOwners, ObjectOwners, owners_of
from .recorder import InterceptionQuery, InterceptionStore, InvalidCursor, Page, Recorder, ResumableRecorder
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
    "MemoryOwners",
    "ObjectOwners",
    "Page",
    "Prompt",
    "ProviderObject",
    "Recorder",
    "ResumableRecorder",
    "Status",
    "Thought",
    "TokenUsage",
    "ToolUsage",
    "owners_of",
    "record_json",
]
