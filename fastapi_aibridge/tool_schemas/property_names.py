"""Names of properties: replaces those that a provider refuses, and restores the tool's own in the arguments of a call.

Anthropic accepts only `^[a-zA-Z0-9_.-]{1,64}$`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

MAX_LENGTH = 64
_ALLOWED = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_ODD = re.compile(r"[^a-zA-Z0-9_.-]")
_DIGITS = 8
MAX_DEPTH = 64
"""Levels of nesting at which names are put back; schemas that are offered are less deep."""


def allowed_name(name: str) -> str:
    """Return the name, or one like it that all providers accept, which ends in a hash so that it is unique."""
    if _ALLOWED.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
    return f"{_ODD.sub('_', name[:MAX_LENGTH])[: MAX_LENGTH - _DIGITS - 1]}_{digest}"


def restored(arguments: Mapping[str, Any], own_names: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the arguments with the tool's own names. `own_names` maps offered names to them."""
    if not own_names:
        return arguments
    return {own_names.get(name, name): _restored(value, own_names, MAX_DEPTH) for name, value in arguments.items()}


def _restored(value: Any, own_names: Mapping[str, str], depth: int) -> Any:
    if depth == 0:
        return value
    if isinstance(value, dict):
        return {own_names.get(name, name): _restored(one, own_names, depth - 1) for name, one in value.items()}
    if isinstance(value, list):
        return [_restored(one, own_names, depth - 1) for one in value]
    return value
