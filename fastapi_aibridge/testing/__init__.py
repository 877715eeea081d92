"""What an app's own tests use: a scripted model provider that costs nothing and answers the same every time."""

from .provider import ScriptedProvider
from .received import Received
from .replies import Reply, ToolCall, Usage

__all__ = ["Received", "Reply", "ScriptedProvider", "ToolCall", "Usage"]
