"""The prompts of a request: the user's words since the model's last response, and the context that agents add to them.

All of it is kept: words that the record leaves out because of their place or the tag around them would be a way around
the record.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import GatewayError
from .large_text import Steps
from .members import is_object, is_string, read_elements, read_members, read_string, says_something, word
from .scanner import finish

USER, AGENT = "user", "agent"
_MAX_PARTS = 64
"""Prompts of one request; the texts of further parts are joined to one more prompt for each source."""
_MAX_READ = 20_000
"""Parts and messages that a request may have after the model's last response. All of them are read."""

_ADDED = (
    "environment_details",
    "environment_context",
    "system-reminder",
    "system_reminder",
    "user_instructions",
    "INSTRUCTIONS",
    "permissions instructions",
    "ide_opened_file",
    "ide_selection",
    "ide_diagnostics",
    "command-name",
    "command-message",
    "command-args",
    "local-command-stdout",
    "local-command-stderr",
    "local-command-caveat",
    "bash-stdout",
    "bash-stderr",
    "editor_context",
    "editorContext",
    "attachments",
    "reminderInstructions",
    "workspace_info",
    "environment_info",
    "open_and_recently_viewed_files",
    "user_info",
    "project_layout",
    "git_status",
    "feedback",
    "turn_aborted",
    "user_shell_command",
    "subagent_notification",
)
"""Tags that coding agents put around the context that they add to the user's words, as seen in requests of Claude Code,
Codex, Cline, Roo Code and Kilo Code, Cursor, GitHub Copilot.
"""
_TAG = re.compile("<(" + "|".join(map(re.escape, _ADDED)) + ")>")
_HEADING = re.compile(r"# AGENTS\.md instructions for [^\n]*+\s*+\Z")
"""The heading that Codex writes before the file's text."""
_WINDOW = 32 * 1024
"""Characters that are searched for tags in one step."""
_LONGEST_TAG = 64
_MAX_HEADING = 1024
_MAX_TAGS = 1000
"""Tags that are recognized in one text; the text after them counts as the user's."""

_MESSAGE = frozenset({"role", "content", "type", "tool_call_id", "call_id"})
_PART = frozenset({"type", "text", "tool_use_id"})
_INSTRUCTIONS = ("system", "developer")
"""Roles of instructions. Their messages may follow the user's, as in Claude Code, and do not count as the last one."""
_TOOLS = ("tool", "function")
"""Roles of tool results. Any other role counts as the user's: lenient providers read its message."""
_MAX_ID = 1024


class Said(NamedTuple):
    """A text in a request; `source` is `user` or `agent`."""

    text: str
    source: str = USER
    truncated: bool = False


class Conversation:
    """The end of a request's conversation: the messages after the model's last response.

    `most` limits the bytes of text that are kept of all parts together.
    """

    __slots__ = ("_cut", "_joined", "_left", "_prompts", "_seen", "answered", "instructed")

    def __init__(self, most: int) -> None:
        self._left = most
        self._cut = False
        self._seen = 0
        self._prompts: list[Said] = []
        self._joined: dict[str, list[str]] = {}
        self.instructed = False
        """Whether there are instructions at the beginning of the conversation, or after the model's last response."""
        self.answered: str | None = None
        """Id of the tool call whose result ends the conversation; None where it ends otherwise."""

    @property
    def prompts(self) -> list[Said]:
        """The prompts in order; those beyond `_MAX_PARTS` are joined to one prompt for each source."""
        prompts = self._prompts
        if self._joined:
            prompts = [*prompts, *(Said("\n".join(texts), source) for source, texts in self._joined.items())]
        if self._cut and prompts:
            prompts[-1] = prompts[-1]._replace(truncated=True)
        return prompts

    def read(self, messages: object) -> Steps[None]:
        """Add a list of messages or items. Raises `GatewayError`, 400."""
        elements = yield from read_elements(messages)
        texts: list[list[object]] = []
        last = True
        for element in reversed(elements):
            yield
            self._count()
            message = (yield from read_members(element, _MESSAGE)) if is_object(element) else {}
            role, kind = word(message.get("role")), word(message.get("type"))
            self.instructed = self.instructed or role in _INSTRUCTIONS
            if role == "assistant" or (not role and (kind.endswith("_call") or kind == "reasoning")):
                break
            answered: str | None = None
            if role in _TOOLS or (not role and kind.endswith("_output")):
                answered = word(message.get("tool_call_id") or message.get("call_id"), _MAX_ID) or None
            elif role not in _INSTRUCTIONS and "content" in message:
                content = message["content"]
                if is_string(content):
                    found = [content]
                else:
                    found, answered = yield from self._parts(content)
                texts.append(found)
            if last and role not in _INSTRUCTIONS:
                self.answered, last = answered, False
        if len(elements) > 1 and not self.instructed and is_object(elements[0]):
            first = yield from read_members(elements[0], _MESSAGE)
            self.instructed = word(first.get("role")) in _INSTRUCTIONS
        for found in reversed(texts):
            for value in found:
                yield from self.say(value)

    def say(self, value: object) -> Steps[None]:
        """Add a text, as far as the limit allows. Raises `GatewayError`, 400."""
        found = (yield from read_string(value, self._left)) if self._left else None
        if found is None or not found[0]:
            if not self._left and says_something(value):
                self._cut = True
            return
        text, cut = found
        self._cut = self._cut or cut
        self._left = max(0, self._left - (len(text) if text.isascii() else len(text.encode())))
        yield
        if "<" not in text:
            self._keep(Said(text))
            return
        for words, source in (yield from splitting(text)):
            self._keep(Said(words, source))

    def _parts(self, content: object) -> Steps[tuple[list[object], str | None]]:
        """Return the texts of a user's message, and the id of the last tool call that one of its parts answers."""
        found: list[object] = []
        answered: str | None = None
        parts = [content] if is_object(content) else (yield from read_elements(content))
        for element in parts:
            yield
            self._count()
            if is_string(element):
                found.append(element)
            elif is_object(element):
                part = yield from read_members(element, _PART)
                if is_string(said := part.get("text")):
                    found.append(said)
                elif word(part.get("type")) == "tool_result":
                    answered = word(part.get("tool_use_id"), _MAX_ID) or answered
        return found, answered

    def _count(self) -> None:
        self._seen += 1
        if self._seen > _MAX_READ:
            message = f"the request has more than {_MAX_READ} messages and parts behind the model's last answer"
            raise GatewayError(400, "invalid_request", message)

    def _keep(self, said: Said) -> None:
        if len(self._prompts) < _MAX_PARTS:
            self._prompts.append(said)
        else:
            self._joined.setdefault(said.source, []).append(said.text)


def split(text: str) -> list[tuple[str, str]]:
    """Split a text by source: the user's own words, then the context within an agent's tags."""
    return finish(splitting(text))


def splitting(text: str) -> Steps[list[tuple[str, str]]]:
    """Split a text in steps, as `split` does."""
    own: list[str] = []
    added: list[str] = []
    unclosed: set[str] = set()
    at = begin = tags = 0
    while at < len(text) and tags < _MAX_TAGS:
        tag = _TAG.search(text, at, at + _WINDOW)
        if tag is None:
            at += _WINDOW - _LONGEST_TAG
            yield
            continue
        tags += 1
        name, at = tag[1], tag.end()
        end = -1 if name in unclosed else text.find(f"</{name}>", at)
        if end < 0:
            unclosed.add(name)  # no later tag of this name is closed either
            continue
        start = _start(text, begin, tag.start())
        own.append(text[begin:start])
        begin = at = end + len(name) + 3
        added.append(text[start:begin])
    if not added:
        return [(text, USER)]
    own.append(text[begin:])
    words = "\n".join(piece.strip() for piece in own if piece.strip())
    return [*([(words, USER)] if words else []), ("\n".join(added), AGENT)]


def _start(text: str, begin: int, tag: int) -> int:
    """Return where an agent's text begins: at the heading above its tag if there is one, else at the tag."""
    begin = max(begin, tag - _MAX_HEADING)
    heading = text.rfind("# AGENTS.md", begin, tag)
    return heading if heading >= 0 and _HEADING.match(text, heading, tag) else tag
