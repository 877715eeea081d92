"""Export of any number of interceptions as a stream of bytes in little memory: JSON lines, CSV or FOCUS charges."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from enum import StrEnum
from typing import Any

from .bounds import weight_of
from .columns import TOKEN_COLUMNS
from .focus import FOCUS_COLUMNS, focus_cells
from .jsonform import record_json
from .printable import cell, json_cell, json_line
from .recorder import InterceptionQuery, InterceptionStore
from .records import InterceptionRecord
from .rows import NO_TOKENS, add_tokens
from .text import dump, dump_bytes

_LARGEST_PAGE = 200
_LARGEST_CHUNK = 4 * 1024 * 1024
_SLICE = 0.002
"""Seconds of work on records after which other tasks have their turn."""
_LARGE = 32 * 1024
"""Bytes of a record's texts from which on its CSV line is written by another thread: it takes a second for some MiB
that look like formulas throughout.
"""

_NESTED = ("metadata", "groups", "token_usages", "prompts", "tool_usages", "thoughts")
_PLAIN = (
    "id",
    "initiator_id",
    "api_key_id",
    "provider",
    "provider_type",
    "route",
    "model",
    "upstream_model",
    "streaming",
    "client",
    "user_agent",
    "session_id",
    "agent_id",
    "parent_agent_id",
    "correlating_tool_call_id",
    "credential_kind",
    "credential_hint",
    "started_at",
    "ended_at",
    "status",
    "upstream_status",
    "error",
    "truncated",
    "cost_usd",
    "cost_estimated",
)
CSV_COLUMNS = (*_PLAIN, *TOKEN_COLUMNS, *_NESTED)


class ExportFormat(StrEnum):
    JSONL = "jsonl"
    """One interception per line, in the form of `record_json`."""
    CSV = "csv"
    """RFC 4180 with a header line: sums of tokens, and nested values as JSON in columns of their own. Text that a
    spreadsheet would run as a formula is preceded by an apostrophe; control characters are replaced."""
    FOCUS = "focus"
    """CSV with the columns of FOCUS 1.2: one charge for each ended interception."""


async def export(
    store: InterceptionStore,
    query: InterceptionQuery | None = None,
    *,
    format: ExportFormat = ExportFormat.JSONL,  # noqa: A002
) -> AsyncIterator[bytes]:
    """Yield chunks of all matching interceptions, newest first; the query's limit is ignored.

    Interceptions that start during the export are left out. Raises `InvalidCursor`.
    """
    query = replace(query or InterceptionQuery(), limit=_LARGEST_PAGE // 2)
    first = query.cursor
    line, columns = _LINES[format]
    while True:
        page = await store.list(query)
        size = 0
        chunk: list[bytes] = []
        if columns and query.cursor == first:
            # The header goes out with the first rows, so that nothing is sent if the rows cannot be read.
            chunk.append(_csv_line(columns))
        begun = time.perf_counter()
        for record in page.items:
            if format is ExportFormat.CSV and weight_of(record.facts) > _LARGE:
                chunk.append(await asyncio.to_thread(line, record))
            else:
                chunk.append(line(record))
            size += len(chunk[-1])
            if time.perf_counter() - begun > _SLICE:
                await asyncio.sleep(0)
                begun = time.perf_counter()
        yield b"".join(chunk)
        if page.next_cursor is None:
            return
        # Records may be large, so the size of the last page decides how many records the next one has.
        limit = query.limit * _LARGEST_CHUNK // max(size, 1)
        query = replace(query, cursor=page.next_cursor, limit=max(1, min(limit, query.limit * 2, _LARGEST_PAGE)))


def _json_line(record: InterceptionRecord) -> bytes:
    return json_line(dump_bytes(record_json(record))) + b"\n"


def _csv_record(record: InterceptionRecord) -> bytes:
    value = record_json(record)
    tokens = add_tokens(NO_TOKENS, record.facts.token_usages)
    nested = (json_cell(dump(value[name])) for name in _NESTED)
    return _csv_line([*(_cell(value[name]) for name in _PLAIN), *tokens, *nested])


def _focus_record(record: InterceptionRecord) -> bytes:
    cells = focus_cells(record)
    return b"" if cells is None else _csv_line(cells)


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6f}"
    return cell(value) if isinstance(value, str) else value


def _csv_line(cells: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode("utf-8", "replace")


_LINES: dict[ExportFormat, tuple[Callable[[InterceptionRecord], bytes], tuple[str, ...]]] = {
    ExportFormat.JSONL: (_json_line, ()),
    ExportFormat.CSV: (_csv_record, CSV_COLUMNS),
    ExportFormat.FOCUS: (_focus_record, FOCUS_COLUMNS),
}
"""The function that writes a record, and the columns of the header line, by format."""
