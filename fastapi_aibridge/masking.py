"""Masks secrets in reprs, dumps and pickles, and in texts and JSON values that come from outside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

MASK = "**********"
_SHORTEST = 8
"""Characters from which a header's value counts as secret: masking shorter ones would garble ordinary words."""


class MaskedSecret(SecretStr):
    """A secret whose pickle is masked as well as its repr: error trackers and worker pools pickle what they find."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (MASK,)

    def __copy__(self) -> MaskedSecret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> MaskedSecret:
        return self


def masked_secret(secret: SecretStr | str) -> MaskedSecret:
    """Return the secret as a `MaskedSecret`."""
    return MaskedSecret(secret.get_secret_value() if isinstance(secret, SecretStr) else secret)


def hint(secret: str) -> str:
    """Return enough of a secret to tell it from others, but too little to use it: `sk-...1234`."""
    return f"{secret[:3]}...{secret[-4:]}" if len(secret) >= 16 else "..."


class Masker:
    """Replaces secrets by their hints in texts and JSON values that came from outside.

    A value without a secret, which is by far the most common, is returned as it is.
    """

    __slots__ = ("_hints",)

    def __init__(self, secrets: Iterable[str]) -> None:
        hints = {form: hint(secret) for secret in secrets if secret for form in _forms(secret)}
        # Longest first, because one secret may begin with another.
        self._hints = tuple(sorted(hints.items(), key=lambda pair: len(pair[0]), reverse=True))

    def __repr__(self) -> str:
        return f"<Masker of {len(self._hints)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the secrets, because a pickle may leave the process."""
        return Masker, ((),)

    def including(self, secret: str) -> Masker:
        """Return a masker that also masks this secret, such as a key that the caller brought."""
        other = Masker((secret,))
        other._hints = tuple(sorted((*self._hints, *other._hints), key=lambda pair: len(pair[0]), reverse=True))
        return other

    def text(self, text: str) -> str:
        """Return the text with each secret replaced by its hint."""
        for secret, shown in self._hints:
            if secret in text:
                text = text.replace(secret, shown)
        return text

    def json(self, value: Any) -> Any:
        """Return the JSON value with each secret replaced by its hint, in names and values at any depth."""
        return self._masked(value) if any(map(self._is_in, _texts(value))) else value

    def _is_in(self, text: str) -> bool:
        return any(secret in text for secret, _ in self._hints)

    def _masked(self, value: Any) -> Any:
        # A loop, because foreign JSON may be nested deeper than Python can recurse.
        root: list[Any] = [value]
        unseen: list[dict[Any, Any] | list[Any]] = [root]
        while unseen:
            place = unseen.pop()
            for name, one in list(place.items() if isinstance(place, dict) else enumerate(place)):
                if isinstance(one, str):
                    place[name] = self.text(one)
                elif isinstance(one, dict):
                    place[name] = {self.text(key): member for key, member in one.items()}
                    unseen.append(place[name])
                elif isinstance(one, list | tuple):
                    place[name] = list(one)
                    unseen.append(place[name])
        return root[0]


def _forms(secret: str) -> Iterator[str]:
    """Yield the secret as it is, as JSON writes it, and as a URL writes it."""
    yield from (secret, json.dumps(secret)[1:-1], quote(secret, safe=""))


def _texts(value: Any) -> Iterator[str]:
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            stack += one
            stack += one.values()
        elif isinstance(one, list | tuple):
            stack += one


def secrets_in_headers(values: Iterable[str]) -> list[str]:
    """Return the parts of header values that may be secret, without a scheme such as `Bearer`."""
    return [part for value in values for part in value.split() if len(part) >= _SHORTEST]
