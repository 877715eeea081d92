"""A model provider that needs no key and no network: it repeats what it is told, word by word, and obeys commands.

Each line of a prompt that is a command is obeyed, the other lines are answered:

    think: what to think      thinks this before it answers
    call TOOL {"json": 1}     calls this tool, if the request offers it; its result is then the answer.
                              An injected tool can be called by the end of its name
    fail 500                  refuses with this status (400 to 599); 429 comes with Retry-After
    fail stream               breaks off a stream with an error event
    fail cut                  breaks off by closing the connection
    slow                      takes half a second for each word

The name of the model can say it, too: `gpt-5-think`, `gpt-5-fail-429`, `claude-sonnet-5-slow`. Tokens are the words of
the prompt and of the answer.

By hand: `python -m example_app.offline --port 9000`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

from example_app import prompt
from example_app.prompt import Prompt
from fastapi_aibridge.testing import Received, Reply, ScriptedProvider, ToolCall, Usage

MODELS = ("gpt-5", "gpt-5-mini", "claude-sonnet-5", "claude-haiku-4-5")
KEY = "sk-offline"
"""The API key that the gateway holds for this provider. Requests with any other key, such as a client's, get 401."""

PACE = 0.02
SLOW_PACE = 0.5
"""Seconds for each word."""

_COMMAND = re.compile(
    r"think:\s*(?P<think>.*\S)"
    r"|call\s+(?P<tool>[\w.-]+)\s*(?P<arguments>\{.*\})?"
    r"|fail\s+(?P<fail>[45]\d\d|stream|cut)"
    r"|(?P<slow>slow)",
    re.IGNORECASE,
)
_IN_MODEL = re.compile(r"-(?:(?P<think>think)|fail-(?P<fail>[45]\d\d|stream|cut)|(?P<slow>slow))\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Orders:
    """The commands of a request and the rest of its prompt."""

    text: str = ""
    thinking: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    fail: str | None = None
    slow: bool = False


def answer(request: Mapping[str, Any]) -> Reply:
    """The reply to a request in any of the three formats."""
    said = prompt.read(request)
    if said.tool_results:
        results = "\n".join(said.tool_results)
        return _counted(Reply(f"The tool says: {results}", delay=PACE), results)
    orders = _orders(said)
    pace = SLOW_PACE if orders.slow else PACE
    if orders.fail and orders.fail.isdigit():
        retry = {"Retry-After": "1"} if orders.fail == "429" else {}
        return Reply(status=int(orders.fail), error=f"told to fail with {orders.fail}", headers=retry)
    calls, unknown = _tool_calls(orders.calls, said.tools)
    text = " ".join([*unknown, *([f"You said: {orders.text}"] if orders.text else [])])
    reply = Reply(text or ("" if calls else "You said nothing."), orders.thinking, calls, delay=pace)
    if orders.fail == "stream":
        return _counted(replace(reply, error="told to fail in the middle"), said.text)
    return _counted(replace(reply, hang_up=orders.fail == "cut"), said.text)


def provider() -> ScriptedProvider:
    """The provider, as an ASGI app; it keeps no requests."""
    return ScriptedProvider(_script, models=MODELS, api_key=KEY, keep=0)


class OfflineServer:
    """The provider on a free loopback port, in a daemon thread, so that it cannot outlive the process."""

    def __init__(self) -> None:
        self._running = ExitStack()
        self._base_url: str | None = None

    @property
    def running(self) -> bool:
        return self._base_url is not None

    def start(self) -> str:
        """Start the server unless it runs, and return its base URL, without `/v1`.

        The port accepts connections on return.
        """
        if self._base_url is None:
            self._base_url = self._running.enter_context(provider().serve_in_thread())
        return self._base_url

    def stop(self) -> None:
        self._running.close()
        self._base_url = None


def _script(received: Received) -> Reply:
    return answer(received.json())


def _orders(said: Prompt) -> Orders:
    orders, rest = Orders(), []
    for match in _IN_MODEL.finditer(said.model):
        orders = replace(
            orders,
            thinking="I was told to think." if match["think"] else orders.thinking,
            fail=match["fail"] or orders.fail,
            slow=bool(match["slow"]) or orders.slow,
        )
    for line in said.text.splitlines():
        command = _COMMAND.fullmatch(line.strip())
        if command is None:
            rest.append(line)
            continue
        call = ((command["tool"], command["arguments"] or "{}"),) if command["tool"] else ()
        orders = replace(
            orders,
            thinking=command["think"] or orders.thinking,
            calls=orders.calls + call,
            fail=command["fail"].lower() if command["fail"] else orders.fail,
            slow=bool(command["slow"]) or orders.slow,
        )
    return replace(orders, text="\n".join(rest).strip())


def _tool_calls(calls: Iterable[tuple[str, str]], offered: tuple[str, ...]) -> tuple[list[ToolCall], list[str]]:
    """Return the calls that can be made, and a sentence for each that cannot."""
    made, unknown = [], []
    for name, arguments in calls:
        # The gateway's own tools have a prefix that names their server.
        matching = [tool for tool in offered if tool == name] or [tool for tool in offered if tool.endswith(f"_{name}")]
        if matching:
            made.append(ToolCall(matching[0], arguments))
        else:
            unknown.append(f"There is no tool {name}; there is: {', '.join(offered) or 'none'}.")
    return made, unknown


def _counted(reply: Reply, read: str) -> Reply:
    written = [reply.text, reply.thinking, *(call.arguments_text for call in reply.tool_calls)]
    thought = len(reply.thinking.split())
    output = sum(len(text.split()) for text in written)
    usage = Usage(input_tokens=max(1, len(read.split())), output_tokens=max(1, output), reasoning_tokens=thought)
    return replace(reply, usage=usage)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m example_app.offline", description="Serve the offline provider.")
    parser.add_argument("--port", type=int, default=9000)
    options = parser.parse_args()
    with provider().serve_in_thread(options.port) as base_url:
        print(f"offline provider at {base_url}, key {KEY}", flush=True)
        with suppress(KeyboardInterrupt):
            Event().wait()


if __name__ == "__main__":
    main()
