"""Tools for an app's own tests: a scripted model provider that is free and deterministic, helpers that put it in the
place of the real providers, and a recorder in memory.
"""

from ..recorder.memory import MemoryRecorder
from .overrides import override_bridge, override_providers, scripted_bridge
from .provider import ScriptedProvider
from .received import Received
from .replies import Reply, ToolCall, Usage
from .spent import Spent

__all__ = [
    "MemoryRecorder",
    "Received",
    "Reply",
    "ScriptedProvider",
    "Spent",
    "ToolCall",
    "Usage",
    "override_bridge",
    "override_providers",
    "scripted_bridge",
]
