"""Lenient readers for JSON of upstreams and clients, as tolerant as the vendors' SDKs: nothing here raises.

Their work is bounded: of an object that would take long to build, only the small members are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

SMALL = 64 * 1024
"""Bytes that are parsed without an estimate of the time."""
_LOOSE = 512 * 1024
"""Bytes of invalid JSON that Python's own parser tries again; it takes ten times as long."""
_MOST_TIME = 15_000_000
"""Nanoseconds, as estimated, that parsing may take."""
MAX_ERROR = 4096
"""Characters kept of a provider's error."""
_READ = (
    "action", "actions", "arguments", "background", "call_id", "choices", "code", "container", "content",
    "content_block", "created_at", "delta", "detail", "encrypted_content", "error", "errors", "function_call", "id",
    "index", "input", "item", "item_id", "message", "model", "name", "object", "operation", "output", "output_index",
    "phase", "response", "service_tier", "signature", "status", "stop_reason", "stop_sequence", "store", "summary",
    "text", "thinking", "tool_calls", "type", "usage", "x_groq",
)  # fmt: skip
"""Members of an object that are read although building it would take long. All others are passed over by the parser
without an object of their own: there may be millions.
"""
_Members = msgspec.json.Decoder(
    msgspec.defstruct("_Members", [(name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in _READ])
)


def load(data: bytes) -> dict[str, Any]:
    """Parse the JSON object in an upstream's bytes; empty where there is none."""
    return load_answer(data) or {}


def load_answer(data: bytes) -> dict[str, Any] | None:
    """Parse the JSON object in an upstream's bytes; None where there is none."""
    if len(data) > SMALL and takes_long(data):
        return _load_small_members(data, 3)
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = _load_loosely(data)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) and "error" in value[0]:
        # Gemini's compatible API wraps its errors in a list.
        value = value[0]
    return value if isinstance(value, dict) else None


def takes_long(data: bytes) -> bool:
    """Whether parsing would block the event loop too long.

    Measured costs: 200 ns for each container, 30 for each other value, 1.3 for each byte.
    """
    if 1.3 * len(data) > _MOST_TIME:
        return True
    containers = data.count(b"{") + data.count(b"[")
    return 200 * containers + 30 * (data.count(b",") + data.count(b":")) + 1.3 * len(data) > _MOST_TIME


def _load_small_members(data: bytes | memoryview, depth: int) -> dict[str, Any] | None:
    try:
        members = _Members.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    found: dict[str, Any] = {}
    for name in _READ:
        raw = getattr(members, name)
        if raw is msgspec.UNSET:
            continue
        view = memoryview(raw)
        if len(view) <= SMALL:
            try:
                found[name] = orjson.loads(view)
            except orjson.JSONDecodeError:
                continue
        elif depth and view[0] == 0x7B:
            found[name] = _load_small_members(view, depth - 1) or {}
    return found


def _load_loosely(data: bytes) -> Any:
    """Parse invalid JSON that some providers send and most clients accept: NaN, half a surrogate pair."""
    if len(data) > _LOOSE or data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{":
        return None
    try:
        value = json.loads(data.decode("utf-8-sig", errors="replace"), parse_int=_integer)
        # Replace lone surrogates, which no database stores.
        return json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        return None


def _integer(digits: str) -> int | float:
    """Parse an integer as orjson does: one that may exceed 64 bits becomes a float."""
    return int(digits) if len(digits) < 19 else float(digits)


def objects(value: object) -> list[dict[str, Any]]:
    """Return the objects in a list; empty where the value is not a list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def member(value: object, name: str) -> dict[str, Any]:
    """Return the object in a member; empty where there is none."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def as_object(value: object) -> dict[str, Any]:
    """Return the value itself if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


_MOST = 10**12
"""Tokens; a larger number is not a count, and sums of such would not fit into a database."""


def count(value: object) -> int:
    """Return a token count or an index; 0 where the value is none."""
    if type(value) is not int:
        if type(value) is not float or not value.is_integer():
            return 0
        value = int(value)
    return value if 0 < value <= _MOST else 0


def counts(value: dict[str, Any], names: dict[str, str]) -> dict[str, int]:
    """Return the token counts of a provider under the gateway's names, to which `names` maps the provider's."""
    return {
        ours: count(value[theirs])
        for theirs, ours in names.items()
        if theirs in value and type(value[theirs]) in (int, float)
    }


def arguments_of(raw: object, most: int, *, cut: bool = False, parsed: bool = True) -> tuple[Any, bool]:
    """Return tool arguments for the record, and whether they were cut to `most` characters.

    They are parsed where they are JSON, else returned as they are; a blank string becomes an empty object.
    """
    if not isinstance(raw, str):
        written = orjson.dumps(raw)
        return (written[:most].decode(errors="ignore"), True) if len(written) > most else (raw, False)
    if cut or len(raw) > most:
        return raw[:most], True
    if not parsed:
        return raw, False
    if not raw.strip():
        return {}, False
    if len(raw) > SMALL and takes_long(raw.encode(errors="replace")):
        return raw, False
    try:
        return orjson.loads(raw), False
    except orjson.JSONDecodeError:
        return raw, False


def error_text(value: object) -> str:
    """Return the text that is recorded of a provider's error: an object, a string, or a list of them."""
    if isinstance(value, list):
        value = "; ".join(words for one in value[:_MOST_ERRORS] if (words := _words_of(one)))
    return _words_of(value)[:MAX_ERROR] or "the upstream reported an error without a message"


_MOST_ERRORS = 16
"""Problems of one response that are recorded: those of a request's members, for instance."""
_MESSAGES = ("message", "msg", "error_description", "detail")


def _words_of(error: object) -> str:
    if not isinstance(error, dict):
        return text(error)
    words = [next((word for name in ("type", "code", "status") if (word := text(error.get(name)))), "")]
    place = error.get("loc")
    words.append(".".join(str(one)[:64] for one in place[:8]) if isinstance(place, list) else "")
    words.append(next((word for name in _MESSAGES if (word := text(error.get(name)))), ""))
    return ": ".join(word for word in words if word)


def reported(answer: Mapping[str, Any]) -> str | None:
    """Return the text of the error that a response reports; None where it reports none.

    Beside the vendors' `{"error": {...}}` there are `{"error": "..."}` (Ollama), `{"detail": ...}` (FastAPI, and
    servers built on it), `{"message": ...}` (Mistral, vLLM, Cohere) and `{"errors": [...]}` (Cloudflare).
    """
    error = answer.get("error")
    if isinstance(error, str) and error:
        more = next((word for name in _MESSAGES if (word := text(answer.get(name)))), "")
        return error_text(f"{error}: {more}" if more else error)
    if error:
        return error_text(error)
    if answer.get("detail"):
        return error_text(answer["detail"])
    if text(answer.get("message")):
        return error_text(answer)
    return error_text(answer["errors"]) if answer.get("errors") else None
