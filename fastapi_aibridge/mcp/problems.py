"""Problems with an MCP server. The texts are our own: they may be logged, and shown to a model.

MCPProblem
├── Unreachable       no connection could be made: nothing has been sent
├── ConnectionBroken  the connection or the response broke: the request may have been executed
└── Refused           a complete response that is not the result
    ├── ServerError   a JSON-RPC error; the server's own text is in `said`
    ├── Unusable      a response that is not the protocol's
    └── TooLarge      a response larger than the limit
"""

from __future__ import annotations


class MCPProblem(Exception):
    pass


class Unreachable(MCPProblem):
    def __init__(self) -> None:
        super().__init__("it cannot be reached")


class ConnectionBroken(MCPProblem):
    def __init__(self, what: str = "the connection broke off") -> None:
        super().__init__(what)


class Refused(MCPProblem):
    """A complete response that is not the result. `status` is its HTTP status."""

    def __init__(self, status: int, what: str | None = None) -> None:
        super().__init__(what or f"it answered with HTTP status {status}")
        self.status = status

    def alike(self, other: Refused) -> bool:
        """Whether two requests were refused in the same way."""
        return type(self) is type(other) and self.status == other.status


class ServerError(Refused):
    """A JSON-RPC error. `said` is the server's own text: for the model that called a tool, never for a log."""

    def __init__(self, status: int, code: int, said: str, data: object = None) -> None:
        super().__init__(status, f"it answered with error {code}")
        self.code = code
        self.said = said
        self.data = data

    def alike(self, other: Refused) -> bool:
        return super().alike(other) and isinstance(other, ServerError) and self.code == other.code


class Unusable(Refused):
    def __init__(self, what: str) -> None:
        super().__init__(200, what)


class TooLarge(Refused):
    def __init__(self, limit: int) -> None:
        super().__init__(200, f"its answer is larger than {limit} bytes")
