"""The provider's properties that prices depend on."""

from __future__ import annotations

from typing import Protocol


class Vendor(Protocol):
    """The part of a provider that a search for prices uses; `providers.Provider` implements it."""

    name: str
    base_url: str

    @property
    def type(self) -> str: ...
