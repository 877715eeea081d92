"""Secrets that do not show: in reprs, dumps and pickles, and in what others say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

MASK = "**********"
_SHORTEST = 8
"""Characters of a header's value that may be a secret: masking shorter ones would garble ordinary words."""


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


def hint(secret: str) -> str:
    """Enough to tell secrets apart, too little to use one: `sk-...1234`."""
    return f"{secret[:3]}...{secret[-4:]}" if len(secret) >= 16 else "..."


class Masker:
    """Replaces secrets by their hints, in texts and JSON values that came from outside.

    Where there is none, which is nearly always, the same object is given back after one pass over its text.
    """

    __slots__ = ("_hints",)

    def __init__(self, secrets: Iterable[str]) -> None:
        hints = {form: hint(secret) for secret in secrets if secret for form in _forms(secret)}
        # The longest first: one secret may begin with another.
        self._hints = tuple(sorted(hints.items(), key=lambda pair: len(pair[0]), reverse=True))

    def __repr__(self) -> str:
        return f"<Masker of {len(self._hints)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Knows no secrets any more: a pickle leaves the process."""
        return Masker, ((),)

    def including(self, secret: str) -> Masker:
        """One that masks a further secret, such as a key that the caller brought."""
        other = Masker((secret,))
        other._hints = tuple(sorted((*self._hints, *other._hints), key=lambda pair: len(pair[0]), reverse=True))
        return other

    def text(self, text: str) -> str:
        """The text with hints in the place of secrets."""
        for secret, shown in self._hints:
            if secret in text:
                text = text.replace(secret, shown)
        return text

    def json(self, value: Any) -> Any:
        """A JSON value with hints in the place of secrets, in names and values at any depth."""
        return self._masked(value) if any(map(self._is_in, _texts(value))) else value

    def _is_in(self, text: str) -> bool:
        return any(secret in text for secret, _ in self._hints)

    def _masked(self, value: Any) -> Any:
        # A loop, because foreign JSON may be nested deeper than Python calls.
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
    """As it is, as JSON writes it, and as a URL does."""
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
    """What may be secret in values of headers: a scheme such as `Bearer` before it does not belong to it."""
    return [part for value in values for part in value.split() if len(part) >= _SHORTEST]
