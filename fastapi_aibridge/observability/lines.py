"""The log line of each ended interception."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from ..recorder.records import Ending, Interception, TokenUsage
from .console import LOGGER, Console, LogFormat, timestamp

logger = logging.getLogger("fastapi_aibridge.interceptions")

_PLAIN = re.compile(r"[\w.@:/+*-]+", re.ASCII)
_LONGEST = 256
"""Characters of a value that are logged."""


class InterceptionLines:
    """The writer of the lines: `key=value` as text, or one JSON object. They hold no prompts, keys or error texts."""

    def __init__(self, format_: LogFormat = "text", console: Console | None = None) -> None:
        self._format = format_
        self._console = console

    def ended(self, interception: Interception, ending: Ending, seconds: float, usages: Iterable[TokenUsage]) -> None:
        """Log the end of an interception: `seconds` is its duration, `usages` are those of all its messages."""
        console = self._console
        direct = console is not None and console.alone
        if not (_is_wanted() if direct else logger.isEnabledFor(logging.INFO)):
            return
        told = _told(interception, ending, seconds, usages)
        if console is not None and direct:
            # Bypass the logging module, whose record would cost more than the line.
            console.write(_json(told, time.time()) if console.format_ == "json" else "INFO:     " + _text(told))
        else:
            line = _json(told, time.time()) if self._format == "json" else _text(told)
            logger.info("%s", line, extra={"aibridge": told})


def _is_wanted() -> bool:
    """Return whether the package's loggers allow the lines; the root's level is not considered without handlers."""
    return not logger.disabled and max(logger.level, LOGGER.level) <= logging.INFO


def _told(interception: Interception, ending: Ending, seconds: float, usages: Iterable[TokenUsage]) -> dict[str, Any]:
    input_tokens = output_tokens = cache_read_tokens = cache_write_tokens = 0
    for usage in usages:
        input_tokens += usage.input_tokens
        output_tokens += usage.output_tokens
        cache_read_tokens += usage.cache_read_tokens
        cache_write_tokens += usage.cache_write_tokens
    told = {
        "id": interception.id,
        "initiator": interception.initiator_id[:_LONGEST],
        "client": interception.client,
        "provider": interception.provider,
        "route": interception.route,
        "model": interception.model[:_LONGEST],
        "status": str(ending.status),
        "upstream_status": ending.upstream_status,
        "seconds": round(seconds, 3),
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cache_read_tokens": cache_read_tokens,
        "cache_write_tokens": cache_write_tokens,
    }
    if ending.cost is not None:
        told["cost_usd"] = ending.cost / 1_000_000
        told["cost_estimated"] = ending.cost_estimated
    return told


def _text(told: dict[str, Any]) -> str:
    upstream_status = told["upstream_status"]
    upstream = "" if upstream_status is None else f" upstream_status={upstream_status}"
    cost = ""
    if "cost_usd" in told:
        cost = f" cost_usd={told['cost_usd']:.6f}{' cost_estimated=true' if told['cost_estimated'] else ''}"
    return (
        f"interception id={told['id']} initiator={_written(told['initiator'])} client={_written(told['client'])} "
        f"provider={_written(told['provider'])} route={_written(told['route'])} model={_written(told['model'])} "
        f"status={told['status']}{upstream} seconds={told['seconds']} "
        f"input_tokens={told['input_tokens']} output_tokens={told['output_tokens']} "
        f"cache_read_tokens={told['cache_read_tokens']} cache_write_tokens={told['cache_write_tokens']}{cost}"
    )


@lru_cache(maxsize=1024)
def _written(value: str) -> str:
    # A value that is no plain word is quoted as ASCII JSON, because clients may choose values with line breaks.
    return value if _PLAIN.fullmatch(value) else json.dumps(value)


def _json(told: dict[str, Any], moment: float) -> str:
    head = {"time": timestamp(moment), "level": "INFO", "logger": logger.name}
    return json.dumps({**head, **told})
