"""The rate limit rules of the settings, and the counters that each request must pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase
from functools import cached_property
from hashlib import blake2b

import msgspec
from cachetools import LRUCache

from ..principal import Principal
from ..settings import LimitRule, LimitSettings
from .pattern_index import PatternIndex

KNOWN = 10_000
"""Kinds of requests (initiator, groups, provider, model) whose counters are cached."""


class Kind(IntEnum):
    REQUESTS = 1
    TOKENS = 2
    CONCURRENT = 3


@dataclass(frozen=True, slots=True)
class Counter:
    """A limit that a request passes while less than `limit` was counted in `window` seconds, or fewer requests run."""

    kind: Kind
    key: str
    limit: int
    window: float
    whose: str
    """The owner of the limit, for the error message: `your limit`, or that of the group, provider or model."""

    def reserved(self, size: int) -> int:
        """The amount that a request counts at admission. Its tokens are unknown then, so they are estimated from the
        size of its body in bytes, with an eighth of the limit at most: an image is large and has few tokens.
        """
        return min(size // 4, self.limit // 8) if self.kind is Kind.TOKENS else 1


class Counters(tuple[Counter, ...]):
    """The counters that one kind of request must pass, with values derived from them once for all such requests."""

    @cached_property
    def tokens(self) -> Counters:
        return Counters(one for one in self if one.kind is Kind.TOKENS)

    @cached_property
    def concurrent(self) -> Counters:
        return Counters(one for one in self if one.kind is Kind.CONCURRENT)

    @cached_property
    def windows(self) -> Sequence[tuple[Kind, Sequence[tuple[int, int]]]]:
        """The index and limit of each counter of requests, then of tokens. A kind without counters is left out."""
        found = {
            kind: [(place, one.limit) for place, one in enumerate(self) if one.kind is kind]
            for kind in (Kind.REQUESTS, Kind.TOKENS)
        }
        return [(kind, places) for kind, places in found.items() if places]

    @cached_property
    def packed(self) -> msgspec.Raw:
        """The kind, key, limit and window in milliseconds of each counter, as MessagePack."""
        told = [(int(one.kind), one.key, one.limit, round(one.window * 1000)) for one in self]
        return msgspec.Raw(msgspec.msgpack.encode(told))


def digest(text: str) -> str:
    """A digest of fixed length that does not reveal the text."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def counters_of(initiator_id: str) -> str:
    """The prefix of the keys of an initiator's counters."""
    return f"limits:{digest(f'initiator:{initiator_id}')}:"


class LimitRules:
    """The rules in force.

    `shared` adds a rule for `max_concurrent_per_principal`, which counts for all processes; a single process enforces
    that limit elsewhere.
    """

    def __init__(self, settings: LimitSettings, *, shared: bool) -> None:
        rules = list(settings.rules)
        if settings.requests or settings.tokens:
            rules.append(
                LimitRule(scope="default", requests=settings.requests, tokens=settings.tokens, window=settings.window)
            )
        if shared and settings.max_concurrent_per_principal:
            rules.append(LimitRule(scope="default", concurrent=settings.max_concurrent_per_principal))
        self._rules = rules
        self._by_model = any(rule.model is not None or rule.scope == "model" for rule in rules)
        self._defaults: list[int] = []
        self._initiators: dict[str, list[int]] = {}
        self._patterns = {scope: PatternIndex() for scope in ("group", "provider", "model")}
        own: dict[str, set[Kind]] = {}
        for place, rule in enumerate(rules):
            if rule.id is None:
                self._defaults.append(place)
            elif rule.scope == "initiator":
                self._initiators.setdefault(rule.id, []).append(place)
                own.setdefault(rule.id, set()).update(kind for kind, _ in _amounts(rule))
            else:
                self._patterns[rule.scope].add(rule.id, place)
        self._own = own
        self._known: LRUCache[tuple[object, ...], Counters] = LRUCache(KNOWN)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def counters(self, principal: Principal, provider: str, model: str | None) -> Counters:
        """Return the counters that a request must pass. Rules for models apply only if `model` is known, not None."""
        key = (
            principal.initiator_id,
            principal.groups,
            provider,
            model if self._by_model else model is None,
        )
        known = self._known.get(key)
        if known is None:
            found: dict[str, Counter] = {}
            for counter in self._find(principal, provider, model):
                same = found.get(counter.key)
                if same is None or counter.limit < same.limit:
                    found[counter.key] = counter
            known = self._known[key] = Counters(found.values())
        return known

    def _find(self, principal: Principal, provider: str, model: str | None) -> Iterator[Counter]:
        own = self._own.get(principal.initiator_id, set())
        for place, subject, whose in sorted(self._subjects(principal, provider, model)):
            rule = self._rules[place]
            if rule.provider is not None and not fnmatchcase(provider, rule.provider):
                continue
            if rule.model is not None and (model is None or not fnmatchcase(model, rule.model)):
                continue
            replaced = own if rule.scope == "default" else set()
            for kind, limit in _amounts(rule):
                if kind not in replaced:
                    window = 0.0 if kind is Kind.CONCURRENT else rule.window
                    yield Counter(kind, _key(rule, kind, subject), limit, window, whose)

    def _subjects(self, principal: Principal, provider: str, model: str | None) -> Iterator[tuple[int, str, str]]:
        """Yield the index of each rule for this request, the subject that it counts, and its name in error messages."""
        initiator, of = principal.initiator_id, self._patterns
        for place in (*self._defaults, *self._initiators.get(initiator, ())):
            yield place, initiator, "your limit"
        for group in principal.groups:
            for place in of["group"].find(group):
                yield place, group, f"the limit of the group {group!r}"
        for place in of["provider"].find(provider):
            yield place, provider, f"the limit of the provider {provider!r}"
        for place in () if model is None else of["model"].find(model):
            pattern = self._rules[place].id or ""
            yield place, pattern, f"the limit of the models {pattern!r}"


def _amounts(rule: LimitRule) -> Iterator[tuple[Kind, int]]:
    amounts = ((Kind.REQUESTS, rule.requests), (Kind.TOKENS, rule.tokens), (Kind.CONCURRENT, rule.concurrent))
    return ((kind, amount) for kind, amount in amounts if amount is not None)


def _key(rule: LimitRule, kind: Kind, subject: str) -> str:
    """The key of a counter, the same in all processes and for any amount, so a changed limit keeps its count."""
    window = "" if kind is Kind.CONCURRENT else f"{rule.window:g}"
    said = "\0".join((rule.scope, rule.provider or "", rule.model or "", window))
    of = "initiator" if rule.scope == "default" else rule.scope
    return f"limits:{digest(f'{of}:{subject}')}:{kind:d}{digest(said)}"
