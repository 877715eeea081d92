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
        fields = _fields(interception, ending, seconds, usages)
        if console is not None and direct:
            # Bypass the logging module, whose record would cost more than the line.
            console.write(_json(fields, time.time()) if console.format_ == "json" else "INFO:     " + _text(fields))
        else:
            line = _json(fields, time.time()) if self._format == "json" else _text(fields)
            logger.info("%s", line, extra={"aibridge": fields})


def _is_wanted() -> bool:
    """Return whether the package's loggers allow the lines; the root's level is not considered without handlers."""
    return not logger.disabled and max(logger.level, LOGGER.level) <= logging.INFO


def _fields(interception: Interception, ending: Ending, seconds: float, usages: Iterable[TokenUsage]) -> dict[str, Any]:
    input_tokens = output_tokens = cache_read_tokens = cache_write_tokens = 0
    for usage in usages:
        input_tokens += usage.input_tokens
        output_tokens += usage.output_tokens
        cache_read_tokens += usage.cache_read_tokens
        cache_write_tokens += usage.cache_write_tokens
    fields = {
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
        fields["cost_usd"] = ending.cost / 1_000_000
        fields["cost_estimated"] = ending.cost_estimated
    return fields


def _text(fields: dict[str, Any]) -> str:
    upstream_status = fields["upstream_status"]
    upstream = "" if upstream_status is None else f" upstream_status={upstream_status}"
    cost = ""
    if "cost_usd" in fields:
        cost = f" cost_usd={fields['cost_usd']:.6f}{' cost_estimated=true' if fields['cost_estimated'] else ''}"
    return (
        f"interception id={fields['id']} initiator={_written(fields['initiator'])} client={_written(fields['client'])} "
        f"provider={_written(fields['provider'])} route={_written(fields['route'])} model={_written(fields['model'])} "
        f"status={fields['status']}{upstream} seconds={fields['seconds']} "
        f"input_tokens={fields['input_tokens']} output_tokens={fields['output_tokens']} "
        f"cache_read_tokens={fields['cache_read_tokens']} cache_write_tokens={fields['cache_write_tokens']}{cost}"
    )


@lru_cache(maxsize=1024)
def _written(value: str) -> str:
    # A value that is no plain word is quoted as ASCII JSON, because clients may choose values with line breaks.
    return value if _PLAIN.fullmatch(value) else json.dumps(value)


def _json(fields: dict[str, Any], moment: float) -> str:
    head = {"time": timestamp(moment), "level": "INFO", "logger": logger.name}
    return json.dumps({**head, **fields})
