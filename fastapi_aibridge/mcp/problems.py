"""What goes wrong between us and an MCP server. The texts are our own: they may be logged, and shown to a model.

MCPProblem
├── Unreachable       no connection could be made: nothing has been sent
├── SessionUnknown    the server has dropped the session: nothing has been executed
├── Refused           an HTTP status instead of an answer
└── BrokenOff         the connection or the answer broke: nobody knows what has been executed
"""

from __future__ import annotations


class MCPProblem(Exception):
    pass


class Unreachable(MCPProblem):
    def __init__(self) -> None:
        super().__init__("it cannot be reached")


class SessionUnknown(MCPProblem):
    def __init__(self) -> None:
        super().__init__("it has ended the session")


class Refused(MCPProblem):
    def __init__(self, status: int) -> None:
        super().__init__(f"it answered with HTTP status {status}")
        self.status = status


class BrokenOff(MCPProblem):
    def __init__(self, what: str = "the connection broke off") -> None:
        super().__init__(what)
