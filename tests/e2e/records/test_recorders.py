"""The destinations of records: databases, the app's own recorders or none, and the content kept from all of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from fastapi_aibridge import Ending, Facts, Interception, MemoryRecorder, Recorder
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.testing import Received, Reply, ToolCall
from tests.waiting import until

from .serving import CHAT, MESSAGES, RESPONSES, gateway

pytestmark = pytest.mark.anyio

READING = ("/interceptions", "/interceptions/some-id", "/interceptions/export", "/usage")


class WriteOnly:
    """The smallest possible recorder, which cannot be read back."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def start(self, interception: Interception) -> None:
        self.told.append(f"start {interception.model}")

    async def observe(self, interception_id: str, facts: Facts) -> None:
        self.told.append("observe")

    async def end(self, interception_id: str, ending: Ending, facts: Facts) -> None:
        self.told.append(f"end {ending.status}")


async def test_two_apps_in_a_process_do_not_meet(tmp_path: Path) -> None:
    """Each app's records are in its own database; two apps with one database see each other's."""
    one, other = (f"sqlite+aiosqlite:///{tmp_path / name}.db" for name in ("one", "other"))
    async with gateway(one) as first, gateway(other) as second, gateway(one) as third:
        for number, gate in enumerate((first, second, third)):
            assert (await gate.ask(model=f"m{number}")).status_code == 200

        async def shared() -> bool:
            return len(await first.listing()) + len(await third.listing()) == 4

        await until(shared)  # another app's records can be read a moment later
        models = [sorted(each["model"] for each in await gate.listing()) for gate in (first, second, third)]
        assert models == [["m0", "m2"], ["m1"], ["m0", "m2"]]


async def test_a_recorder_that_is_switched_off(tmp_path: Path) -> None:
    """Without a recorder requests are served and nothing is written; reading gets 404 that names the setting."""
    file = tmp_path / "records.db"
    async with gateway(f"sqlite+aiosqlite:///{file}", recorder_enabled=False) as gate:
        answer = await gate.ask()
        assert answer.status_code == 200
        for path in READING:
            refused = await gate.read(path)
            assert refused.status_code == 404
            assert "AIBRIDGE_RECORDER__ENABLED" in refused.json()["detail"]
    assert not file.exists()


async def test_one_recorder_of_the_apps_own() -> None:
    """The app's own recorder receives start and end; if it cannot be read back, reading gets 404."""
    recorder = WriteOnly()
    async with gateway(bridge={"recorder": recorder}) as gate:
        assert (await gate.ask(model="m")).status_code == 200
        assert recorder.told == ["start m", "end completed"]
        for path in READING:
            assert (await gate.read(path)).status_code == 404
    async with gateway(bridge={"recorder": MemoryRecorder()}) as gate:
        assert (await gate.ask(model="m")).status_code == 200
        assert [one["model"] for one in await gate.listing()] == ["m"]


async def test_several_recorders(url: str) -> None:
    """All recorders receive the records, and the first one that can be read back serves listings and sums."""
    told = WriteOnly()
    async with gateway(bridge={"recorder": [told, SQLRecorder(url), MemoryRecorder()]}) as gate:
        assert (await gate.ask(model="m", stream=True)).status_code == 200
        assert told.told == ["start m", "end completed"]
        assert [one["model"] for one in await gate.listing()] == ["m"]
        assert [row["calls"] for row in (await gate.json("/usage"))["items"]] == [1]
    async with gateway(bridge={"recorder": [told, told]}) as gate:
        for path in READING:
            assert (await gate.read(path)).status_code == 404


async def test_a_factory_is_asked_at_the_first_use(url: str) -> None:
    """A factory makes the recorder at its first use, once, even if several requests need it at that moment."""
    made: list[Recorder] = []

    async def make() -> Recorder:
        await asyncio.sleep(0.05)
        made.append(SQLRecorder(url))
        return made[-1]

    async with gateway(bridge={"recorder": make}) as gate:
        assert made == []
        answers = await asyncio.gather(*(gate.ask() for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200}
        assert len(await gate.listing()) == 10
        assert len(made) == 1
    async with gateway(bridge={"recorder": [make, WriteOnly()]}) as gate:
        # Reading counts as a use as well.
        assert len(await gate.listing()) == 10
        assert len(made) == 2


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
async def test_a_factory_that_fails_refuses_requests(path: str) -> None:
    """A factory that fails gives 503 without a call upstream until it succeeds; reading gets 503 as well."""
    failures = [OSError("cannot reach db.internal, password s3cret"), ValueError("no")]

    async def make() -> Recorder:
        if failures:
            raise failures.pop(0)
        return MemoryRecorder()

    async with gateway(bridge={"recorder": make}) as gate:
        answer = await gate.ask(path)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        error = answer.json()["error"]
        assert ("type" in error, "code" in error) == (True, path is not MESSAGES)
        assert "s3cret" not in answer.text
        assert gate.provider.received == []
        reading = await gate.read("/interceptions")
        assert (reading.status_code, reading.json()) == (503, {"detail": "the records cannot be read now"})
        assert (await gate.ask(path)).status_code == 200
        assert len(await gate.listing()) == 1


class Away(WriteOnly):
    """A recorder that cannot be read, as during an outage of its database."""

    async def get(self, *_: Any) -> Any:
        raise ConnectionRefusedError("db.internal")

    list = usage = get


async def test_records_that_cannot_be_read_now() -> None:
    """Records that cannot be read give 503 with `Retry-After`, also for an export, before it has begun."""
    async with gateway(bridge={"recorder": Away()}) as gate:
        for path in (*READING, "/interceptions/export?format=csv"):
            answer = await gate.read(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "db.internal" not in answer.text


SECRETS = {
    "prompt": "walnut-prompt-83",
    "arguments": "walnut-argument-83",
    "thinking": "walnut-thought-83",
    "error": "walnut-error-83",
    "text": "walnut-answer-83",
}


def in_files(directory: Path) -> bytes:
    return b"".join(one.read_bytes() for one in directory.iterdir())


def secretive(received: Received) -> Reply:
    """Return a message, a refusal or a stream that breaks, each full of text that must not be recorded."""
    model = received.json()["model"]
    if model == "refused":
        return Reply(status=400, error=SECRETS["error"])
    if model == "broken":
        return Reply(SECRETS["text"], thinking=SECRETS["thinking"], error=SECRETS["error"])
    call = ToolCall("read_file", {"path": SECRETS["arguments"]})
    return Reply(SECRETS["text"], thinking=SECRETS["thinking"], tool_calls=[call])


@pytest.mark.parametrize("capture", [True, False])
async def test_without_content_no_text_reaches_the_database(tmp_path: Path, capture: bool) -> None:
    """Without content no text reaches the database or its log; the other facts of each request do.

    With content all of the text but the message's is found there, which proves that the search works.
    """
    file = tmp_path / "records.db"
    recorder = {"capture_content": capture}
    async with gateway(f"sqlite+aiosqlite:///{file}", reply=secretive, recorder_options=recorder) as gate:
        for path in (CHAT, RESPONSES, MESSAGES):
            for model in ("good", "refused", "broken"):
                for stream in (False, True):
                    await gate.ask(path, prompt=SECRETS["prompt"], model=model, stream=stream)
        records = await gate.listing()
        written = in_files(tmp_path)
    written += in_files(tmp_path)
    assert len(records) == 18
    assert {(one["model"], one["status"]) for one in records} == {
        ("good", "completed"),
        ("refused", "failed"),
        ("broken", "failed"),
    }
    found = {name for name, secret in SECRETS.items() if secret.encode() in written}
    if capture:
        assert found == set(SECRETS) - {"text"}
    else:
        assert found == set()
        assert "walnut" not in json.dumps(records)
        good = [one for one in records if one["model"] == "good"]
        assert all(one["token_usages"][0]["input_tokens"] == 12 for one in good)
        assert all([call["tool"] for call in one["tool_usages"]] == ["read_file"] for one in good)


async def test_without_content_the_apps_own_recorders_get_none() -> None:
    """The setting keeps content from every recorder, one or several, whoever wrote it."""
    for own in (MemoryRecorder(), WriteOnly()):
        kept = MemoryRecorder()
        given = [kept, own] if isinstance(own, WriteOnly) else own
        off = {"capture_content": False}
        async with gateway(bridge={"recorder": given}, reply=secretive, recorder_options=off) as gate:
            for model in ("good", "refused", "broken"):
                await gate.ask(MESSAGES, prompt=SECRETS["prompt"], model=model, stream=True)
            records = await gate.listing()
        assert len(records) == 3
        assert "walnut" not in json.dumps(records)
        assert sum(len(one["token_usages"]) for one in records) >= 2
