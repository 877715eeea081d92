from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from fastapi_aibridge.recorder.export import ExportFormat, export
from fastapi_aibridge.recorder.memory import MemoryRecorder
from fastapi_aibridge.recorder.printable import cell, json_cell, json_line
from fastapi_aibridge.recorder.records import Facts, Prompt, ToolUsage
from tests import processor_time

from .builders import ending, interception

FORMULAS = [
    "=cmd|' /C calc'!A0",
    "+1+cmd",
    "-2+3+cmd",
    "@SUM(1)",
    "  =1",
    "\u00a0\u3000=1",
    "\u00a0=1",
    ";\u00a0\u202f\u205f@SUM(1)",
    "\u00ad\u1680\u180e-1",
    "\ufeff=1",
    "\u200b@x",
    "\uff1d1",
    "\uff0b1",
    "\uff0d1",
    "\uff201",
    "\t=1",
    "\r=1",
    "\n=1",
    "a;=1",
    "a,=1",
    "a,  =1",
    "a\t@x",
    "a\n=1",
    "a\r\n+1",
    'a";=1;"',
    "a|-1",
]
STARTS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def cells_of(line: str) -> list[str]:
    """The pieces of a line that some CSV dialect may read as cells."""
    for separator in ';,|\t\r\n"':
        line = line.replace(separator, "\0")
    return [piece.strip(" \u00a0\u00ad\u1680\u180e\u202f\u205f\u3000\ufeff\u200b") for piece in line.split("\0")]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula_whatever_separates_cells(text: str) -> None:
    """No piece is a formula, whatever characters a CSV dialect takes as separators, quotes or line ends."""
    assert any(piece.startswith(STARTS) for piece in cells_of(text))
    assert not any(piece.startswith(STARTS) for piece in cells_of(cell(text)))
    value = [{"text": text, "n": -5}]
    written = json_cell(json.dumps(value, ensure_ascii=False))
    assert json.loads(written) == value
    inside = written.replace('"n": -5', "")
    assert not any(piece.startswith(STARTS) for piece in cells_of(inside))


@pytest.mark.parametrize("text", ["plain", "a-b", "a = b", "x@y.org", "1 + 2", "a\r\nb", ""])
def test_other_text_stays_as_it_is(text: str) -> None:
    """Formula characters within a text are left as they are."""
    assert cell(text) == text


def test_nothing_that_a_terminal_obeys_is_written() -> None:
    """Terminal escape sequences and marks of text direction are removed from text and escaped in JSON."""
    hostile = "a\x1b[31m\x07\x7f\x9b2J\u202egnp\u2066\u2028b"
    assert cell(hostile).isprintable()
    assert not set(cell(hostile)) & set("\x1b\x07\x7f\x9b\u202e\u2066\u2028")
    line = json_line(json.dumps({"a": hostile}, ensure_ascii=False).encode())
    assert json.loads(line) == {"a": hostile}
    assert not set(line.decode()) & set("\x1b\x07\x7f\x9b\u202e\u2066\u2028")


@pytest.mark.parametrize("piece", [", ", " ", '"', ";", "\\", "=", "\u200b", "\n ", '",', "a"])
def test_the_time_grows_with_the_text(piece: str) -> None:
    """Four times the text takes less than eight times as long."""

    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        written = json.dumps(text, ensure_ascii=False)
        return processor_time.of(lambda: (cell(text), json_cell(written)))

    assert processor_time.growth(seconds, 200_000, 800_000, 8) < 8


@pytest.mark.anyio
async def test_an_export_holds_no_formula_and_no_control_character() -> None:
    """Exports in both formats have no formula and no control character, in plain and in JSON columns."""
    recorder = MemoryRecorder()
    hostile = "x;=1\x1b[2J\x9b\u202e"
    begun = interception(model=hostile, user_agent="=1", metadata={"k": hostile})
    await recorder.start(begun)
    facts = Facts(
        prompts=[Prompt(message_id=hostile, text=hostile)],
        tool_usages=[ToolUsage(message_id="m", call_id="c", tool="=1", arguments={"a": [hostile, "-1"]})],
    )
    await recorder.end(begun.id, ending(error=f"\n{hostile}"), facts)
    written: dict[Any, str] = {}
    for form in ExportFormat:
        written[form] = b"".join([chunk async for chunk in export(recorder, format=form)]).decode()
        assert not set(written[form]) & set("\x1b\x9b\u202e")
    assert json.loads(written[ExportFormat.JSONL])["prompts"][0]["text"] == hostile
    (row,) = csv.DictReader(io.StringIO(written[ExportFormat.CSV], newline=""))
    for value in row.values():
        assert not any(piece.startswith(STARTS) for piece in cells_of(value))
    assert json.loads(row["tool_usages"])[0]["arguments"] == {"a": [hostile, "-1"]}
