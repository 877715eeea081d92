"""A client key as requested and as stored; neither holds the key's text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from ..errors import PrincipalError
from ..principal import Principal
from ..recorder.jsonform import DOCUMENTED

MAX_LABEL = 200
"""Characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """The properties of a new key.

    Raises `PrincipalError` for values that no principal can have, and `ValueError` for an invalid label or expiry.
    """

    initiator_id: str
    label: str = ""
    expires_at: datetime | None = None
    groups: tuple[str, ...] = ()
    models: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.initiator_id.strip():
            raise PrincipalError("initiator_id is empty")
        Principal(self.initiator_id, groups=self.groups, models=self.models)
        if len(self.label) > MAX_LABEL or not (self.label.isprintable()):
            raise ValueError(f"label must be printable text of at most {MAX_LABEL} characters")
        if self.expires_at is not None:
            if self.expires_at.tzinfo is None:
                raise ValueError("expires_at must have a time zone, such as 2026-12-31T00:00:00Z")
            if self.expires_at <= datetime.now(UTC):
                raise ValueError("expires_at must be in the future")
            try:
                self.expires_at.astimezone(UTC)
            except OverflowError:
                raise ValueError("expires_at must be before the year 10000 in UTC; leave it out for never") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """One client key, without its text."""

    __pydantic_config__ = DOCUMENTED

    id: str
    """The `api_key_id` of the principal that has it, and of its records."""
    hint: str
    """Enough of its text to tell keys apart, and too little to use it: `aib...1234`."""
    initiator_id: str
    label: str
    groups: tuple[str, ...]
    models: tuple[str, ...] | None
    """Patterns of models; unset for all models."""
    origin: Literal["database", "settings"] = "database"
    """`settings` for a key that can only be changed there."""
    created_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    """Up to a minute old."""
