"""The centralized keys of a provider: chooses the key of a request, and rests keys that were refused."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from ..masking import hint

CENTRALIZED, BYOK = "centralized", "byok"

RATE_LIMITED_REST = 30.0
"""Seconds that a key rests after a 429 that names no time."""
REJECTED_REST = 300.0
"""Seconds that a key rests after a 401: somebody may be about to correct it."""
LONGEST_REST = 3600.0
"""The most seconds that a key rests. A daily quota may ask for more, but trying once an hour costs nothing."""
NOTABLE = 1.0
"""Seconds by which a rest must grow for other processes to be told: each refused request may extend it."""
MAX_REASON = 4 * 1024
"""Bytes of a refusal's body that are searched for its reason."""

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
    """Whether the body of a 401 says that the key is wrong, as the vendors do.

    Providers send 401 for other reasons, too: a browser's `Origin`, a header of the caller's.
    """
    return _SPEAKS_OF_KEY.search(body, 0, MAX_REASON) is not None


@dataclass(frozen=True, slots=True)
class Credential:
    """The credential that pays for a request: the key itself, and its hint for the record."""

    key: str
    kind: str
    """`centralized` or `byok`."""
    hint: str = field(init=False, compare=False)
    """Masked form of the key, enough to tell keys apart and too little to use one: `sk-...1234`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hint", hint(self.key))

    def __repr__(self) -> str:
        return f"Credential({self.hint!r}, {self.kind!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the hint in place of the key: a pickle leaves the process."""
        return Credential, (self.hint, self.kind)


@dataclass(frozen=True, slots=True)
class KeyState:
    """A snapshot of one key."""

    hint: str
    resting_for: float
    """Seconds; 0 for a key that is ready."""


class KeyPool:
    """Equivalent keys, several because each has limits of its own.

    Each caller has a home key and keeps it, because providers cache prompts by account; callers of a key that rests are
    spread over the others. A rest is advice, not a ban: where all keys rest, requests take the one that is ready first,
    so that the provider's response reaches the client, and one model's limit does not stop the others.
    """

    def __init__(self, keys: Iterable[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._credentials = tuple(Credential(key, CENTRALIZED) for key in dict.fromkeys(keys))
        self._clock = clock
        self._until: dict[Credential, float] = {}  # end of the last rest of each key
        self._suspects: dict[Credential, tuple[str, float]] = {}  # unconfirmed 401s: the caller, and when they expire
        self.rests: Counter[int] = Counter()
        """Number of rests, by the status that caused them."""
        self.rested: Callable[[Credential, float], None] | None = None
        """Called with a key and the seconds of its rest, where the rest is new or has grown notably."""

    def __len__(self) -> int:
        return len(self._credentials)

    def choose(self, caller: str) -> Credential:
        """Return the caller's home key, or another while that rests. Raises `IndexError` if there are no keys."""
        credentials = self._credentials
        if len(credentials) < 2:
            return credentials[0]
        # Not hash(), which differs between workers.
        place = crc32(caller.encode())
        home = credentials[place % len(credentials)]
        if not self._until or self._is_ready(home):
            return home
        return self._other(place, ()) or min(credentials, key=lambda one: self._until.get(one, 0.0))

    def another(self, caller: str, tried: Collection[Credential]) -> Credential | None:
        """Return a ready key that is not among those tried; None where there is none."""
        return self._other(crc32(caller.encode()), tried)

    def rest(self, credential: Credential, status: int, seconds: float | None) -> None:
        """Rest a key that was refused with 429 or 401; `seconds` is the time that the provider asks for, if any.

        A key that rests already keeps the later end.
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
        """Rest the keys that another process has sent to rest."""
        until = self._clock() + min(seconds, LONGEST_REST)
        for credential in self._credentials:
            if is_meant(credential):
                self._until[credential] = max(until, self._until.get(credential, 0.0))

    def rejected(self, credential: Credential, caller: str, *, certain: bool) -> bool:
        """Report that a key was refused with 401. Return whether the key is at fault, and rests for that.

        It is at fault where the response says so (`certain`), or another caller's request was refused as well: a single
        caller must not be able to take the keys from all.
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
        # By the part of the hash that did not choose the home, so that the callers of one home are spread.
        return ready[place // len(self._credentials) % len(ready)] if ready else None
