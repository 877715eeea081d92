"""A response of OpenAI's Responses API, accumulated from a stream or read whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...principal import MAX_MODEL
from ...recorder.records import Facts, ProviderObject, Thought, ToolUsage
from ..lenient import arguments_of, error_text, member, objects, reported, text
from ..text import Budget
from ..usage import responses_usage, tier_of
from .items import is_call
from .places import ADDED, DONE, Places

BEGINNINGS = frozenset({"response.created", "response.queued", "response.in_progress"})
ENDS = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled", "response.done"}
)
"""`response.done` ends a response in OpenAI's Realtime API, and at some compatible servers."""

_SERVER_CALLS = {"web_search_call": "web_search_requests", "file_search_call": "file_search_requests"}
"""Types of items that are calls of the provider's own tools, with the names under which they are counted."""
_MAX_ITEMS, _MAX_ID = 256, 512
"""Items of a stored response whose owner is recorded, and the characters of their ids."""


class ResponseMessage:
    """A response. `whole` keeps its items, for a response that may have to go back to the provider."""

    __slots__ = (
        "_item_ids", "_places", "_server_calls", "_stored", "_thoughts", "_tools", "_whole", "begun", "budget",
        "complete", "error", "final", "id", "items", "model", "place", "service_tier", "status", "usage",
    )  # fmt: skip

    def __init__(self, budget: Budget, *, whole: bool = False) -> None:
        self.budget = budget
        self._whole = whole
        self.id = ""
        self.model = ""
        """The model, as the provider names it."""
        self.service_tier: object = None
        self.status = ""
        self.complete = False
        self.error: str | None = None
        self.usage: dict[str, Any] = {}
        self.begun: dict[str, Any] = {}
        """Members of the response's beginning that its end repeats."""
        self.items: dict[int, dict[str, Any]] = {}
        self.final: dict[str, Any] = {}
        self.place: int | None = None
        """Place of the item that the last event is about; None where there is none, or the message is not `whole`."""
        self._places = Places() if whole else None
        self._stored = True
        self._tools: list[ToolUsage] = []
        self._thoughts: list[Thought] = []
        self._item_ids: list[str] = []
        self._server_calls: dict[str, int] = {}

    @property
    def stream_complete(self) -> bool:
        return self.complete

    @property
    def pending(self) -> bool:
        """Whether the response continues at the provider."""
        return bool(self.id) and self.status in ("queued", "in_progress")

    def apply(self, event: Mapping[str, Any]) -> None:
        kind = event.get("type")
        self.place = None if self._places is None else self._places.of(event)
        if kind == DONE:
            item = member(event, "item")
            self._record((item,))
            self._keep(item)
        elif kind == ADDED:
            self._keep(member(event, "item"))
        elif kind == "response.function_call_arguments.done":
            item = {} if self.place is None else self.items.get(self.place, {})
            if item and not item.get("arguments") and self.budget.take(len(text(event.get("arguments")))):
                item["arguments"] = event.get("arguments")
        elif kind == "error":
            # The event's own type says nothing; its code does.
            self.error = self.error or reported({**event, "type": None}) or error_text(None)
        elif event.get("error"):
            self.error = self.error or reported(event)
        elif isinstance(kind, str) and kind.startswith("response.") and "response" in event:
            response = member(event, "response")
            self._begin(response)
            self.usage = member(response, "usage") or self.usage
            if kind in ENDS:
                self._end(response)

    def done(self) -> None:
        """Do nothing: some compatible servers send `[DONE]` after the response has ended."""

    def placed(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the last event with the place of its item as its index."""
        place = self.place
        return event if place is None or event.get("output_index") == place else {**event, "output_index": place}

    def _keep(self, item: dict[str, Any]) -> None:
        """Keep an item where the response may have to go back.

        Some compatible servers do not repeat their items at the response's end.
        """
        place = self.place
        if place is None:
            return
        known = self.items.get(place, {})
        if self.budget.take(_size(item), place not in self.items):
            if known.get("arguments") and not item.get("arguments") and item.get("type") == known.get("type"):
                item = {**item, "arguments": known["arguments"]}
            self.items[place] = item

    def _begin(self, response: Mapping[str, Any]) -> None:
        self.id = text(response.get("id")) or self.id
        self.status = text(response.get("status")) or self.status
        self._stored = self._stored and response.get("store") is not False
        self.model = text(response.get("model"))[:MAX_MODEL] or self.model
        self.service_tier = response.get("service_tier") or self.service_tier
        if not self.begun:
            self.begun = {key: response[key] for key in ("id", "created_at", "model") if key in response}

    def _end(self, response: dict[str, Any]) -> None:
        self.complete = True
        if output := objects(response.get("output")):
            self._tools, self._thoughts, self._item_ids, self._server_calls = [], [], [], {}
            self._record(output)
        if self._whole:
            self.final = self.final or response
        if response.get("status") == "failed" or response.get("error"):
            self.error = self.error or error_text(response.get("error") or "the response failed")

    def read(self, answer: Mapping[str, Any]) -> None:
        self._begin(answer)
        self.usage = member(answer, "usage")
        if "output" in answer:
            self._end(dict(answer))
        else:
            self.error = reported(answer)

    def output(self) -> list[dict[str, Any]]:
        """Return the items as the response's end repeats them, or else as they came one by one."""
        return objects(self.final.get("output")) or [self.items[index] for index in sorted(self.items)]

    def _record(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Keep the facts to record of these items, and nothing else of them."""
        for item in items:
            kind = text(item.get("type"))
            if (id_ := text(item.get("id"))) and len(id_) <= _MAX_ID and len(self._item_ids) < _MAX_ITEMS:
                self._item_ids.append(id_)
            if (counted := _SERVER_CALLS.get(kind)) and _is_billed(item):
                self._server_calls[counted] = self._server_calls.get(counted, 0) + 1
            if is_call(item):
                self._tools.append(self._tool_usage(kind, item))
            elif kind == "reasoning":
                for part in objects(item.get("summary")):
                    self._think("reasoning_summary", text(part.get("text")))
            elif kind == "message" and item.get("phase") == "commentary":
                self._think("commentary", "".join(text(part.get("text")) for part in objects(item.get("content"))))

    def _think(self, source: str, said: str) -> None:
        most = min(self.budget.recorded, self.budget.left)
        if said and self.budget.take(min(len(said), most), 1):
            self._thoughts.append(Thought(source=source, text=said[:most], truncated=len(said) > most))

    def _tool_usage(self, kind: str, item: Mapping[str, Any]) -> ToolUsage:
        """Return the record of a call that the client is to run.

        OpenAI's shell and computer tools have no name but their type.
        """
        if kind == "function_call":
            raw = item.get("arguments") or ""
        elif kind == "custom_tool_call":
            raw = item.get("input")
        else:
            raw = next((item[key] for key in ("action", "operation", "actions", "arguments") if key in item), None)
        arguments, truncated = arguments_of(raw, self.budget.recorded, parsed=kind == "function_call")
        return ToolUsage(
            message_id=self.id,
            call_id=text(item.get("call_id")),
            tool=text(item.get("name")) or kind.removesuffix("_call"),
            arguments=arguments,
            truncated=truncated,
        )

    def facts(self) -> Facts:
        facts = Facts(
            tool_usages=list(self._tools),
            thoughts=list(self._thoughts),
            model=self.model,
            service_tier=tier_of(self.service_tier),
            server_calls=self._server_calls,
        )
        if self.usage:
            facts.token_usages.append(
                responses_usage(self.id, self.usage, partial=not self.complete, service_tier=self.service_tier)
            )
        if self.id and self._stored:
            facts.objects.append(ProviderObject(kind="response", id=self.id))
            facts.objects += [ProviderObject(kind="item", id=id_) for id_ in self._item_ids]
        return facts


def _is_billed(item: Mapping[str, Any]) -> bool:
    """Whether a call is billed.

    Of a web search's actions, only the search itself is (developers.openai.com/api/docs/guides/tools-web-search).
    """
    return member(item, "action").get("type") in (None, "search")


def _size(item: Mapping[str, Any]) -> int:
    """Return the approximate number of characters in an item's strings."""
    size, left = 0, [item]
    while left:
        one = left.pop()
        for value in one.values():
            if isinstance(value, str):
                size += len(value)
            elif isinstance(value, dict):
                left.append(value)
            elif isinstance(value, list):
                size += 8 * len(value)
                left += [inner for inner in value if isinstance(inner, dict)]
    return size
