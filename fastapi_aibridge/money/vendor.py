"""Whose prices are meant."""

from __future__ import annotations

from typing import Protocol


class Vendor(Protocol):
    """What is known of a provider when its prices are looked for; `providers.Provider` is one."""

    name: str
    base_url: str

    @property
    def type(self) -> str: ...
