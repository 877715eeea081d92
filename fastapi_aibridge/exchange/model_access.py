"""Restricts a principal to its models: refuses requests for others, and filters lists of models."""

from __future__ import annotations

from typing import Any

import orjson

from ..errors import GatewayError
from ..formats.large_text import LARGE, BodyText, Steps
from ..formats.lenient import SMALL, takes_long
from ..formats.models_named import models_anywhere, models_asked_for
from ..principal import MAX_MODEL, Principal
from ..providers.routes import SAFE_METHODS, Route
from .fair_queue import Share
from .steps import in_steps

MODELS_SIZE = 4 * 1024 * 1024
"""Bytes of a list of models that can be filtered."""
_MOST_MODELS = 4096
"""Models of a list that can be filtered."""
_AT_ONCE = 32
"""Models that are checked in one step, few because there may be many patterns."""
_SHOWN = 8
"""Patterns that an error names."""


async def check_request(principal: Principal, body: BodyText, share: Share) -> None:
    """Raise `GatewayError` 403 if a decoded request names a model that the principal may not use."""
    _check(principal, await in_steps(models_asked_for(body), share))


async def check_passed(
    principal: Principal, route: Route, method: str, path: str, body: BodyText, share: Share
) -> None:
    """Check a request that is passed through. Raises as `check_request`, but 404 for a read of a single model."""
    if route.models == "path":
        model = path.removeprefix(route.path.rstrip("*"))
        if not principal.allows(model):
            raise _missing(model) if method in SAFE_METHODS else _refused(principal, model)
    elif route.models == "body" and (len(body) >= LARGE or body[:].strip()):
        await check_request(principal, body, share)
    elif route.models == "anywhere" and method not in SAFE_METHODS:
        _check(principal, await in_steps(models_anywhere(path, body), share))


def filtered(answer: bytes, principal: Principal) -> Steps[bytes]:
    """Reduce a provider's list of models to those that the principal may use.

    Raises `GatewayError` 502 if the list has an unknown form, because it may name other models, or takes too long to
    read.
    """
    if len(answer) > SMALL and takes_long(answer):
        raise _unreadable()
    try:
        listed = orjson.loads(answer)
    except orjson.JSONDecodeError:
        raise _unreadable() from None
    if not isinstance(listed, dict):
        raise _unreadable()
    names = [name for name in ("data", "models") if isinstance(listed.get(name), list)]
    if not names:
        raise _unreadable()
    for name in names:
        listed[name] = yield from _allowed(listed[name], principal)
    if "data" in names:
        _mend_paging(listed, listed["data"])
    return orjson.dumps(listed)


def _allowed(models: list[Any], principal: Principal) -> Steps[list[Any]]:
    if len(models) > _MOST_MODELS:
        raise _unreadable()
    shown: list[Any] = []
    for begin in range(0, len(models), _AT_ONCE):
        for one in models[begin : begin + _AT_ONCE]:
            name = _name_of(one)
            if len(name) <= MAX_MODEL and principal.allows(name):
                shown.append(one)
        yield
    return shown


def _mend_paging(listed: dict[str, Any], shown: list[Any]) -> None:
    """Set a page's cursors to its first and last model. An empty page keeps its own if further pages follow."""
    if not shown and listed.get("has_more"):
        return
    for name, place in (("first_id", 0), ("last_id", -1)):
        if listed.get(name) is not None:
            listed[name] = _name_of(shown[place]) if shown else None


def _name_of(model: Any) -> str:
    """Return a model's name: `id` in the vendors' lists, `slug` in Codex's own, `name` in others."""
    if not isinstance(model, dict):
        return model if isinstance(model, str) else ""
    return next((one for name in ("id", "slug", "name") if isinstance(one := model.get(name), str)), "")


def _check(principal: Principal, models: set[str]) -> None:
    for model in models:
        if not model or not principal.allows(model):
            raise _refused(principal, model)


def _refused(principal: Principal, model: str) -> GatewayError:
    patterns = principal.models or ()
    shown = ", ".join(map(repr, patterns[:_SHOWN])) or "none"
    more = f" and {len(patterns) - _SHOWN} more" if len(patterns) > _SHOWN else ""
    what = f"use the model {model[:256]!r}" if model else "leave the choice of the model to the provider"
    # The code is part of the message, because Anthropic's shape has no place for it.
    message = f"model_not_allowed: this caller may not {what}; allowed: {shown}{more}"
    return GatewayError(403, "model_not_allowed", message)


def _missing(model: str) -> GatewayError:
    return GatewayError(404, "model_not_found", f"there is no model {model[:256]!r} that this caller may use")


def _unreadable() -> GatewayError:
    message = "the provider's list of models cannot be read, so it cannot be reduced to those that this caller may use"
    return GatewayError(502, "unreadable_models", message)
