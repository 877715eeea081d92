"""Lists of models from hostile providers are filtered in short steps or not relayed."""

from __future__ import annotations

import time

import orjson
import pytest

from fastapi_aibridge import GatewayError, Principal
from fastapi_aibridge.exchange.model_access import MODELS_SIZE, filtered
from tests.processor_time import least

ALICE = Principal("alice", models=[*(f"gpt-{number}*" for number in range(127)), "*-x-*"])


def listed(piece: bytes, most: int = MODELS_SIZE) -> bytes:
    return b'{"data":[' + piece * ((most - 32) // len(piece)) + b"{}]}"


def steps_of(answer: bytes) -> tuple[list[float], object]:
    """Return the processor time of each step, and the list or the code of the error."""
    steps, took = filtered(answer, ALICE), []
    while True:
        begun = time.thread_time()
        end: object = None
        try:
            next(steps)
        except StopIteration as stop:
            end = stop.value
        except GatewayError as error:
            end = error.code
        took.append(time.thread_time() - begun)
        if end is not None:
            return took, end


@pytest.mark.parametrize(
    "piece",
    [b"{},", b'"",', b"0,", b"[[]],", b'{"id":"abcdefgh"},', b'{"id":"' + b"gpt-x-" * 1000 + b'"},'],
    ids=["objects", "texts", "numbers", "lists", "names", "long names"],
)
@pytest.mark.parametrize("size", [60_000, 300_000, MODELS_SIZE])
def test_no_list_takes_long(piece: bytes, size: int) -> None:
    """Filtering takes under 20 ms for a step and 2 s in all, for any content."""
    answer = listed(piece, size)
    _, end = steps_of(answer)
    assert isinstance(end, bytes) or end == "unreadable_models"
    assert least(lambda: max(steps_of(answer)[0]), 0.02) < 0.02
    assert least(lambda: sum(steps_of(answer)[0]), 2) < 2


def test_a_long_list_is_reduced() -> None:
    """A list as long as any vendor's is filtered; a name over the length limit of models is left out."""
    models = [{"id": f"gpt-{number}", "description": "d" * 800} for number in range(1500)]
    _, shown = steps_of(orjson.dumps({"data": [*models, {"id": "gpt-1" + "0" * 300}]}))
    assert isinstance(shown, bytes)
    assert [one["id"] for one in orjson.loads(shown)["data"]] == [one["id"] for one in models]
