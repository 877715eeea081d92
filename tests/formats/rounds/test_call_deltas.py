"""Pieces of streamed calls that come in an unusual order, or under an unusual index."""

from __future__ import annotations

import pytest

from fastapi_aibridge.testing import Reply

from .driving import CHAT, play
from .test_chat_completions import DONE, FINISH, START, calls, chunk, piece


@pytest.mark.parametrize("name", ["bmcp_box_echo", "read"])
def test_arguments_that_come_before_the_name(name: str) -> None:
    """A call whose arguments begin before its name waits for the name, and is then run, or passed on as it came."""
    deltas = [
        {"index": 0, "id": "call_a", "type": "function", "function": {"arguments": '{"text":'}},
        {"index": 0, "function": {"name": name, "arguments": '"x"'}},
        {"index": 0, "function": {"arguments": "}"}},
    ]
    first = START + b"".join(chunk(calls(one)) for one in deltas) + FINISH + DONE
    played = play(CHAT, [first, Reply(text="done")], streamed=True)
    if name == "read":
        assert (played.body, played.calls) == (first, [])
    else:
        assert [one.parsed() for one in played.calls] == [{"text": "x"}]
        assert played.seen().text == "done"
        assert b"bmcp_" not in played.body


def test_arguments_under_another_index_than_their_call() -> None:
    """Pieces with an index of their own, but no id and no name, continue the last call that has begun."""
    call_ = piece("bmcp_box_echo", "", "call_a", index=0)
    pieces = [piece(arguments=written, index=index) for index, written in ((1, '{"text":'), (2, '"x"}'))]
    played = play(
        CHAT, [START + b"".join(chunk(calls(one)) for one in (call_, *pieces)) + FINISH + DONE, Reply()], streamed=True
    )
    assert [one.parsed() for one in played.calls] == [{"text": "x"}]
    both = {**calls(piece("bmcp_box_echo", '{"text":"x"}', "call_a", index=0)), "function_call": {"arguments": "{}"}}
    played = play(CHAT, [START + chunk(both) + FINISH + DONE, Reply()], streamed=True)
    assert [one.parsed() for one in played.calls] == [{"text": "x"}]
    whole = piece(arguments='{"text":"y"}', index=1)
    first = START + chunk(calls(piece("bmcp_box_echo", '{"text":"x"}', "call_a", index=0))) + chunk(calls(whole))
    played = play(CHAT, [first + FINISH + DONE, Reply()], streamed=True)
    assert [one.parsed() for one in played.calls] == [{"text": "x"}]  # the other has no name
