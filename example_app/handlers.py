"""The app's own routes: they use the caller's bridge as if it were the vendor's API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import openai
from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel

from fastapi_aibridge import RequestBridge, get_bridge

MODEL = "gpt-5"
Bridge = Annotated[RequestBridge, Depends(get_bridge)]

router = APIRouter()

START = """\
<!doctype html>
<title>AI bridge example</title>
<h1>An app with an AI gateway</h1>
<p>The terminal that started this app shows commands to try: with curl, the SDKs and coding agents.</p>
<ul>
<li><a href="docs">The app's routes</a>, the gateway's admin routes among them</li>
<li><a href="ai/readyz">Whether the gateway can take work</a></li>
</ul>
"""


class TextStream(StreamingResponse):
    media_type = "text/plain"


class Provider(BaseModel):
    name: str
    type: str


class Me(BaseModel):
    """The caller's id and the providers that the caller can use."""

    initiator_id: str
    providers: list[Provider]


class Text(BaseModel):
    text: str


class Summary(BaseModel):
    summary: str
    output_tokens: int


@router.get("/", include_in_schema=False, response_class=HTMLResponse)
async def start() -> str:
    """The page that a browser opens first."""
    return START


@router.get("/me")
async def me(bridge: Bridge) -> Me:
    return Me(
        initiator_id=bridge.principal.initiator_id,
        providers=[Provider(name=provider.name, type=provider.type) for provider in bridge.providers],
    )


@router.post("/summaries")
async def summarise(document: Text, bridge: Bridge) -> Summary:
    """Summarise a document. The answer comes as a whole, by the official SDK."""
    reply = await bridge.openai().responses.create(
        model=MODEL, instructions="Summarise the text in one sentence.", input=document.text
    )
    return Summary(summary=reply.output_text, output_tokens=reply.usage.output_tokens if reply.usage else 0)


@router.post("/stories", response_class=TextStream)
async def tell(idea: Text, bridge: Bridge) -> TextStream:
    """Stream a story, token by token.

    If the caller disconnects, the provider's stream is closed. The model is called before the response begins, so that
    a refused call is not answered with 200.
    """
    return TextStream(words(await bridge.openai().responses.create(model=MODEL, input=idea.text, stream=True)))


async def words(stream: openai.AsyncStream[ResponseStreamEvent]) -> AsyncIterator[str]:
    """Yield the text as it arrives.

    Raises `RuntimeError` if the model's response breaks off: this cuts the app's own response, so that its caller
    notices.
    """
    complete = False
    async with stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                yield event.delta
            complete = complete or event.type in ("response.completed", "response.incomplete")
    if not complete:
        raise RuntimeError("the model's answer broke off")


async def model_failed(_: Request, error: openai.APIStatusError) -> JSONResponse:
    """Pass on 429, 503 and 504, and turn other upstream statuses into 502. Message and `Retry-After` are kept."""
    headers = {"Retry-After": seconds} if (seconds := error.response.headers.get("retry-after")) else None
    status = error.status_code if error.status_code in (429, 503, 504) else 502
    return JSONResponse({"detail": error.message}, status, headers)
