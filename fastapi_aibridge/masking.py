"""Secrets that do not show: in reprs, dumps and pickles."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

MASK = "**********"


class MaskedSecret(SecretStr):
    """A secret whose pickle is masked as well as its repr: error trackers and worker pools pickle what they find."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (MASK,)

    def __copy__(self) -> MaskedSecret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> MaskedSecret:
        return self


def masked_secret(secret: SecretStr | str) -> MaskedSecret:
    """The same secret in a form that does not show."""
    return MaskedSecret(secret.get_secret_value() if isinstance(secret, SecretStr) else secret)
