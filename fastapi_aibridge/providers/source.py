"""The interface of an app's own source of providers, in place of the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from .provider import Provider


@runtime_checkable
class ProviderSource(Protocol):
    """An app's own source of providers, for instance a database. It is asked at start and at each reload."""

    async def load(self) -> Sequence[Provider]:
        """Return all providers, with distinct names.

        Raise `SettingsError` to refuse a reload with a text for the operator.
        """
