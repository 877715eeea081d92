"""The last events of a stream are sent in one message with its end, if they arrive together."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from starlette.types import Message

from fastapi_aibridge.errors import UpstreamUnreachable
from fastapi_aibridge.exchange.body_budget import BodyBudget
from fastapi_aibridge.exchange.fair_queue import FairQueue
from fastapi_aibridge.exchange.relay import relay_stream
from fastapi_aibridge.exchange.response_writer import ResponseWriter
from fastapi_aibridge.formats import chat_completions
from fastapi_aibridge.upstream.failures import BROKEN_OFF, Failure
from fastapi_aibridge.upstream.response import ResponseHeaders, UpstreamResponse

pytestmark = pytest.mark.anyio

WORD = b'data: {"id":"c","choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
FINISH = b'data: {"id":"c","choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Relayed:
    """A response whose head has arrived, and the relay of its stream."""

    def __init__(self) -> None:
        raw = [(b"content-type", b"text/event-stream")]
        self.response = UpstreamResponse(Mock())
        self.response.begin(200, raw, ResponseHeaders(raw))
        self.sent: list[bytes] = []
        self.begun = 0

    async def run(self) -> bytes:
        rounds = chat_completions.single(b"{}", 2**20, usage_asked=True)
        reply = ResponseWriter(self._send, "i-1")
        share, holding = FairQueue().share("alice"), BodyBudget().holding("alice")
        return await relay_stream(self.response, rounds, reply, share, holding, None, self._begin)

    async def _send(self, message: Message) -> None:
        if "body" in message:
            self.sent.append(message["body"])

    async def _begin(self) -> None:
        self.begun += 1


def ended(*pieces: bytes, failure: Failure | None = None) -> Relayed:
    relayed = Relayed()
    for piece in pieces:
        relayed.response.feed(piece)
    relayed.response.end(failure)
    return relayed


async def test_what_came_with_the_end_is_left_to_it() -> None:
    """Events that arrive with the end are returned for the last message, after `begin` has run."""
    relayed = ended(WORD, FINISH)
    assert await relayed.run() == WORD + FINISH
    assert (relayed.sent, relayed.begun) == ([], 1)


@pytest.mark.parametrize("failure", [None, BROKEN_OFF])
async def test_what_came_of_a_message_without_end_is_sent(failure: Failure | None) -> None:
    """Events before an error or a missing end are sent at once."""
    relayed = ended(WORD, failure=failure)
    with pytest.raises(UpstreamUnreachable):
        await relayed.run()
    assert relayed.sent == [WORD]


@pytest.mark.parametrize("rest", [b"data: [DONE]", b": comment"])
async def test_a_torn_rest_follows_what_is_whole(rest: bytes) -> None:
    """An incomplete last event follows the whole ones."""
    relayed = ended(WORD, FINISH + rest)
    assert await relayed.run() == b""
    assert b"".join(relayed.sent) == WORD + FINISH + rest
