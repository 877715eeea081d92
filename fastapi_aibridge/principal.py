"""The principal, which is the authenticated caller, and all checks of the values that an app gives for it."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import SecretStr

from .budget import Budget
from .errors import PrincipalError

MAX_ID = 512
"""Characters of an id. Databases index it, and an index row of PostgreSQL holds 2704 bytes."""
MAX_SESSION_KEY = 16 * 1024
"""Characters of a session key: some identity providers' tokens have several thousand."""
MAX_METADATA = 16 * 1024
"""Characters of all keys and values together; a number or constant counts as eight. Each record gets a copy."""
MAX_BUDGETS = 32
MAX_DEPTH = 16
"""Levels of lists and objects in metadata."""
MAX_GROUPS = 64
MAX_PATTERNS = 128
"""Model patterns of one principal."""
MAX_MODEL = 256
"""Characters of a model's name, which is a key of records, metrics and circuit breakers, or of a pattern for names."""

_CONSTANT_SIZE = 8
_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller that a bridge works for.

    `initiator_id` is the user or service, `api_key_id` the key that they used; together they are the key of the pool.
    `session_key` is secret: it authenticates the principal to MCP servers, and each bridge serves one session key only.
    `metadata`, a mapping of JSON values, is copied into the record of each request. `groups` are names to which budgets
    and limits refer. `models` are patterns (`fnmatch`, case-sensitive) of the models that the principal may request:
    None allows all, an empty sequence none. `budgets` limit the spending of the initiator or, with the scope `group`,
    of all principals with that group together; each is a `Budget` or a mapping of its members. They apply in addition
    to the budgets of the settings.

    Raises `PrincipalError` for ids, groups or patterns that are no `str`, and for anything that could not be written
    into a record: lone surrogates, NUL characters, ids over 512 characters, metadata over 16 KiB or deeper than 16
    levels; also for more than 64 groups, 128 patterns or 32 budgets, and for patterns over 256 characters.
    """

    initiator_id: str
    api_key_id: str = ""
    session_key: SecretStr | str | None = field(default=None, repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    groups: Sequence[str] = ()
    models: Sequence[str] | None = None
    budgets: Sequence[Budget | Mapping[str, Any]] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        initiator, key = self.initiator_id, self.api_key_id
        # A fast check that nearly all ids pass.
        if not (
            type(initiator) is str
            and type(key) is str
            and initiator.isascii()
            and key.isascii()
            and len(initiator) <= MAX_ID >= len(key)
            and "\0" not in initiator
            and "\0" not in key
        ):
            object.__setattr__(self, "initiator_id", _checked_id("initiator_id", initiator))
            object.__setattr__(self, "api_key_id", _checked_id("api_key_id", key))
        if self.session_key is not None:
            _check_session_key(self.session_key)
        if self.metadata or type(self.metadata) is not dict:
            _check_metadata(self.metadata)
        if self.groups != ():
            object.__setattr__(self, "groups", _checked_names("groups", self.groups, MAX_GROUPS, MAX_ID))
        if self.models is not None:
            object.__setattr__(self, "models", _checked_names("models", self.models, MAX_PATTERNS, MAX_MODEL))
        if self.budgets != ():
            object.__setattr__(self, "budgets", _checked_budgets(self.initiator_id, self.budgets))

    def allows(self, model: str) -> bool:
        """Whether the principal may use this model."""
        patterns = self.models
        return patterns is None or model in patterns or any(_matching(pattern)(model) for pattern in patterns)

    @property
    def own_budgets(self) -> Sequence[Budget]:
        """`budgets` as `Budget` objects, into which `__post_init__` has turned them."""
        return self.budgets  # type: ignore[return-value]

    @property
    def key(self) -> tuple[str, str]:
        """The key of the pool. A tuple, because joined strings could collide: ("a|b", "") and ("a", "b")."""
        return (self.initiator_id, self.api_key_id)

    @property
    def session(self) -> SecretStr | None:
        """The session key as a `SecretStr`, which can be compared and is masked in reprs; None if there is none."""
        key = self.session_key
        return SecretStr(key) if isinstance(key, str) else key

    def has_session_of(self, other: Principal) -> bool:
        """Whether both principals have the same session key, or both have none."""
        return self.session_key is other.session_key or self.session == other.session


def _checked_id(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise PrincipalError(f"{name} of a Principal must be a str, not {type(value).__name__}; convert it with str()")
    if len(value) > MAX_ID:
        raise PrincipalError(f"{name} of a Principal has {len(value)} characters, more than {MAX_ID}", by_caller=True)
    _check_text(name, value)
    return str.__str__(value)  # the plain text of a subclass such as an enum's member


def _checked_names(name: str, values: object, most: int, longest: int) -> tuple[str, ...]:
    """Return the checked names without duplicates, in their order."""
    if isinstance(values, str) or not isinstance(values, Sequence | set | frozenset):
        raise PrincipalError(f"{name} of a Principal must be a sequence of str, not {_kind(values)}")
    if len(values) > most:
        raise PrincipalError(f"{name} of a Principal has {len(values)} entries, more than {most}", by_caller=True)
    for value in values:
        if not isinstance(value, str):
            raise PrincipalError(f"{name} of a Principal must hold str only, but it holds {_kind(value)}")
        if not value:
            raise PrincipalError(f"{name} of a Principal holds an empty text")
        if len(value) > longest:
            raise PrincipalError(
                f"{name} of a Principal holds a text of {len(value)} characters, more than {longest}", by_caller=True
            )
        _check_text(name, value)
    return tuple(dict.fromkeys(str.__str__(value) for value in values))


@lru_cache(maxsize=4096)
def _matching(pattern: str) -> Callable[[str], object]:
    """Compile a pattern. Cached here, because principals are made for each request while patterns are few."""
    return re.compile(fnmatch.translate(pattern)).match


def _checked_budgets(initiator_id: str, budgets: object) -> tuple[Budget, ...]:
    if not isinstance(budgets, Sequence) or isinstance(budgets, str):
        raise PrincipalError(f"budgets of a Principal must be a sequence of Budget, not {_kind(budgets)}")
    if len(budgets) > MAX_BUDGETS:
        raise PrincipalError(f"a Principal has more than {MAX_BUDGETS} budgets")
    try:
        checked = tuple([Budget.of(budget) for budget in budgets])
    except (TypeError, ValueError) as error:
        raise PrincipalError(f"budgets of a Principal: {error}") from None
    for budget in checked:
        if budget.scope not in ("initiator", "group") or (budget.scope == "group") != bool(budget.id):
            if budget.scope == "initiator" and budget.id == initiator_id:
                continue
            raise PrincipalError(
                "budgets of a Principal are its initiator's own, without an id, or those of a group with its id"
            )
    return checked


def _check_session_key(value: object) -> None:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if not isinstance(value, str):
        raise PrincipalError(f"session_key of a Principal must be a str, a SecretStr or None, not {_kind(value)}")
    if len(value) > MAX_SESSION_KEY:
        raise PrincipalError(f"session_key of a Principal has more than {MAX_SESSION_KEY} characters", by_caller=True)


def _check_text(name: str, value: str) -> None:
    if "\0" in value:
        raise PrincipalError(f"{name} of a Principal contains a NUL character, which no database takes", by_caller=True)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            message = f"{name} of a Principal contains a lone surrogate, which is no text in UTF-8"
            raise PrincipalError(message, by_caller=True) from None


def _check_metadata(value: object) -> None:
    if not isinstance(value, Mapping):
        raise PrincipalError(f"metadata of a Principal must be a mapping of JSON values, not {_kind(value)}")
    if _is_plain(value):
        return
    size = 0
    waiting: list[tuple[object, int]] = [(value, 0)]
    while waiting:
        one, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise PrincipalError(f"metadata of a Principal has more than {MAX_DEPTH} levels", by_caller=True)
        inner: Iterable[object] = ()
        if isinstance(one, str):
            size += len(one)
            _check_text("metadata", one)
        elif isinstance(one, dict) or (depth == 0 and isinstance(one, Mapping)):
            size += len(one)
            inner = (part for pair in one.items() for part in (_Key(pair[0]), pair[1]))
        elif isinstance(one, list | tuple):
            size += len(one)
            inner = one
        elif isinstance(one, _Key):
            size += len(one.checked())
        else:
            size += _CONSTANT_SIZE
            _check_constant(one)
        if size > MAX_METADATA:
            raise PrincipalError(
                f"metadata of a Principal has more than {MAX_METADATA} characters; every record gets a copy of it",
                by_caller=True,
            )
        waiting.extend((part, depth + 1) for part in inner)


def _is_plain(metadata: Mapping[object, object]) -> bool:
    """Whether the metadata are a few short texts, as nearly all are. Ten times as fast as the full check."""
    return len(metadata) <= 16 and all(
        type(text) is str and len(text) <= 256 and text.isascii() and "\0" not in text
        for pair in metadata.items()
        for text in pair
    )


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of an object, marked because it must be text while a value need not."""

    key: object

    def checked(self) -> str:
        if not isinstance(self.key, str):
            raise PrincipalError(f"keys in metadata of a Principal must be str, not {_kind(self.key)}")
        _check_text("metadata", self.key)
        return self.key


def _check_constant(value: object) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, float):
        if math.isfinite(value):
            return
        raise PrincipalError("metadata of a Principal contains a number that JSON does not have: inf or nan")
    if isinstance(value, int):
        if -_INT64 <= value < _INT64:
            return
        raise PrincipalError("metadata of a Principal contains an integer of more than 64 bits")
    raise PrincipalError(f"metadata of a Principal must hold JSON values only, but it holds {_kind(value)}")


def _kind(value: object) -> str:
    return type(value).__name__
