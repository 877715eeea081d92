"""The centralized keys of a provider: which one a request takes, and which ones rest."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

CENTRALIZED, BYOK = "centralized", "byok"

RATE_LIMITED_REST = 30.0
"""Seconds that a key rests after a 429 which does not say for how long."""
REJECTED_REST = 300.0
"""Seconds that a key rests after a 401: somebody may be about to put it right."""
LONGEST_REST = 3600.0
"""A quota of the day may ask for more; looking once an hour costs nothing."""
NOTABLE = 1.0
"""Seconds by which a rest must become longer for others to hear of it: each refused request may make it longer."""
MAX_REASON = 4 * 1024
"""Bytes of a refusal's body that are looked through for what it speaks of."""

_WRONG = (
    rb"(?:incorrect|invalid|bad|wrong|unknown|unrecognized|expired|revoked|disabled|deactivated|inactive|malformed)"
)
_KEY = (
    rb"(?:(?:x-)?api[ _-]?keys?|subscription[ _-]?keys?|(?:api|access|bearer|oauth|auth|authentication)[ _-]?tokens?|"
    rb"(?:api |auth )?credentials?)"
)
_SPEAKS_OF_KEY = re.compile(
    rb"\b" + _WRONG + rb"[ _\W]{1,3}(?:[a-z]{1,20} ){0,2}" + _KEY + rb"|"
    rb"\b" + _KEY + rb"[^.{}]{0,60}?\b(?:not (?:valid|found|recognized|active)|invalidated|" + _WRONG + rb")\b|"
    rb"account[ _](?:is )?deactivated|\binvalid[ _]authentication\b|\bno (?:auth |api )?credentials? found\b",
    re.IGNORECASE,
)


def speaks_of_key(body: bytes) -> bool:
    """Whether a 401 says that the key is wrong, as the vendors do. Providers answer 401 for other reasons, too: a
    browser's `Origin`, a header of the caller's.
    """
    return _SPEAKS_OF_KEY.search(body, 0, MAX_REASON) is not None


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request is paid with: the key itself, and what a record may say of it."""

    key: str
    kind: str
    """`centralized` or `byok`."""
    hint: str = field(init=False, compare=False)
    """Enough to tell keys apart, too little to use one: `sk-...1234`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hint", f"{self.key[:3]}...{self.key[-4:]}" if len(self.key) >= 16 else "...")

    def __repr__(self) -> str:
        return f"Credential({self.hint!r}, {self.kind!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the key: a pickle leaves the process."""
        return Credential, (self.hint, self.kind)


@dataclass(frozen=True, slots=True)
class KeyState:
    """One key at one moment."""

    hint: str
    resting_for: float
    """Seconds; 0 for a key that is ready."""


class KeyPool:
    """Keys that do the same, several because each has limits of its own.

    Each caller has a home among them and stays there, because providers cache prompts by account; callers of a key
    that rests are spread over the others. A rest is advice, not a bar: where all keys rest, requests take the one that
    is ready first, so that what the provider says reaches the client, and one model's limit does not stop the others.
    """

    def __init__(self, keys: Iterable[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._credentials = tuple(Credential(key, CENTRALIZED) for key in dict.fromkeys(keys))
        self._clock = clock
        self._until: dict[Credential, float] = {}  # when the rest of a key ends that has rested
        self._suspects: dict[Credential, tuple[str, float]] = {}  # by whose request, and until when: rejected
        self.rests: Counter[int] = Counter()
        """How often keys were sent to rest, by the status that did it."""
        self.rested: Callable[[Credential, float], None] | None = None
        """Hears of the key that is sent to rest, or to a longer one, and for how many seconds."""

    def __len__(self) -> int:
        return len(self._credentials)

    def choose(self, caller: str) -> Credential:
        """The caller's key for now: the home where that is ready. Raises `IndexError` if there are no keys."""
        credentials = self._credentials
        if len(credentials) < 2:
            return credentials[0]
        # Not hash(): that differs from one worker to the next.
        place = crc32(caller.encode())
        home = credentials[place % len(credentials)]
        if not self._until or self._is_ready(home):
            return home
        return self._other(place, ()) or min(credentials, key=lambda one: self._until.get(one, 0.0))

    def masked(self, text: str, also: Credential) -> str:
        """The text with hints in the place of keys, these and one more."""
        # The longest first: a shorter one may be how it begins.
        for credential in sorted({*self._credentials, also}, key=lambda one: len(one.key), reverse=True):
            text = text.replace(credential.key, credential.hint)
        return text

    def another(self, caller: str, tried: Collection[Credential]) -> Credential | None:
        """A key that is ready and not among those tried; None where there is no such key."""
        return self._other(crc32(caller.encode()), tried)

    def rest(self, credential: Credential, status: int, seconds: float | None) -> None:
        """Leave a key alone that was answered with 429 or 401; `seconds` is how long the provider asks for, if it does.

        A key that rests already rests until the later end.
        """
        rest = seconds if seconds is not None else RATE_LIMITED_REST if status == 429 else REJECTED_REST
        now = self._clock()
        until = now + min(rest, LONGEST_REST)
        if credential in self._credentials:
            before = self._until.get(credential, 0.0)
            self._until[credential] = max(until, before)
            self.rests[status] += 1
            if self.rested is not None and until > before + NOTABLE:
                self.rested(credential, until - now)

    def hear(self, is_meant: Callable[[Credential], bool], seconds: float) -> None:
        """Another process has sent a key to rest."""
        until = self._clock() + min(seconds, LONGEST_REST)
        for credential in self._credentials:
            if is_meant(credential):
                self._until[credential] = max(until, self._until.get(credential, 0.0))

    def rejected(self, credential: Credential, caller: str, *, certain: bool) -> bool:
        """A key was answered with 401. Whether that was the key's fault: then it rests.

        It is where the answer says so (`certain`), or another caller's request has been answered so, too: what a
        single caller can bring about must not take the keys from all.
        """
        now = self._clock()
        suspect = self._suspects.get(credential)
        confirmed = suspect is not None and suspect[0] != caller and now < suspect[1]
        if certain or confirmed:
            self.rest(credential, 401, None)
            return True
        if credential in self._credentials and (suspect is None or now >= suspect[1]):
            self._suspects[credential] = (caller, now + REJECTED_REST)
        return False

    def is_resting(self, credential: Credential) -> bool:
        return not self._is_ready(credential)

    def __iter__(self) -> Iterator[KeyState]:
        now = self._clock()
        for credential in self._credentials:
            yield KeyState(credential.hint, max(0.0, self._until.get(credential, 0.0) - now))

    def _is_ready(self, credential: Credential) -> bool:
        return self._until.get(credential, 0.0) <= self._clock()

    def _other(self, place: int, tried: Collection[Credential]) -> Credential | None:
        ready = [one for one in self._credentials if one not in tried and self._is_ready(one)]
        # The part of the hash that did not choose the home, so that its callers do not all go to the same place.
        return ready[place // len(self._credentials) % len(ready)] if ready else None
