"""Reads the client's last message to the model from a request in any of the three wire formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any


@dataclass(frozen=True, slots=True)
class Prompt:
    """The last message.

    `text` is its last text; `tool_results` is set instead if the request ends with tool results.
    """

    model: str
    text: str
    tool_results: tuple[str, ...]
    tools: tuple[str, ...]
    """The names of the tools that the model may call."""


def read(request: Mapping[str, Any]) -> Prompt:
    """Read the prompt. The members of a request tell its format; parts that are not understood are ignored."""
    turns = request.get("input", request.get("messages"))
    turns = [{"role": "user", "content": turns}] if isinstance(turns, str) else turns
    turns = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    said = [turn for turn in turns if turn.get("role") == "user"]
    texts = list(_texts(said[-1].get("content"))) if said else []
    return Prompt(
        model=str(request["model"]),
        text=texts[-1] if texts else "",
        tool_results=tuple(_tool_results(turns)),
        tools=tuple(_tool_names(request.get("tools"))),
    )


def _tool_results(turns: list[dict[str, Any]]) -> Iterator[str]:
    for turn in reversed(list(takewhile(_is_tool_result, reversed(turns)))):
        yield " ".join(_texts(turn.get("output", turn.get("content"))))
    # Anthropic sends tool results as blocks of a user message.
    last = turns[-1].get("content") if turns else None
    for block in last if isinstance(last, list) else ():
        if isinstance(block, dict) and block.get("type") == "tool_result":
            yield " ".join(_texts(block.get("content")))


def _is_tool_result(turn: Mapping[str, Any]) -> bool:
    return turn.get("role") == "tool" or str(turn.get("type")).endswith("_call_output")


def _texts(content: object) -> Iterator[str]:
    """The texts of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def _tool_names(tools: object) -> Iterator[str]:
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict):
            # Chat Completions nests the name one level deeper.
            name = tool.get("name") or (tool.get("function") or {}).get("name")
            if isinstance(name, str):
                yield name
