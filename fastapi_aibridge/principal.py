"""Who calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller that a bridge works for.

    `initiator_id` is the user or service, `api_key_id` the key that they used: together they are the pool's key.
    `session_key` is secret; it authenticates the principal to MCP servers. `metadata` is written into each record.
    """

    initiator_id: str
    api_key_id: str = ""
    session_key: SecretStr | str | None = field(default=None, repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """The pool's key. A tuple: a joined string would let ("a|b", "") meet ("a", "b")."""
        return (self.initiator_id, self.api_key_id)
