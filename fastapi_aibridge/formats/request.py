"""An intercepted request, as far as the gateway understands it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import GatewayError
from ..principal import MAX_MODEL
from .large_text import BodyText, Steps
from .members import Members, Value, check, is_list, members_of, read_members, says_something, small, string
from .prompts import Said
from .references import Reference

MAX_COUNT = 1_000_000_000
"""Tokens or choices that a request may ask for; larger numbers count as this one."""
MAX_TEXT = 1024 * 1024
"""Bytes of prompts that are kept, unless the caller says otherwise."""


@dataclass(slots=True, kw_only=True)
class ModelRequest:
    """The facts of a request that are read before it goes upstream."""

    model: str
    """Empty where the request names a stored prompt instead, whose model the provider knows."""
    streaming: bool
    body: BodyText
    """The body to send upstream: the client's bytes, edited only where the format needs it."""
    prompts: list[Said] = field(default_factory=list)
    """The user's words since the last response, and the context that the client added."""
    correlating_tool_call_id: str | None = None
    user_id: str | None = None
    """`metadata.user_id`, in which some clients send their session."""
    references: list[Reference] = field(default_factory=list)
    """Objects stored at the provider that the request names."""
    background: bool = False
    """Whether the provider continues after the request has ended."""
    takes_tools: bool = True
    """Whether tools can be injected into the request."""
    offers_no_tools: bool = False
    """Whether the request instructs the model without tools: by an empty list of them, or by instructions alone."""
    usage_asked: bool = True
    """Whether the client itself asked for the usage of a streamed chat."""
    output_bounds: tuple[object, ...] = ()
    """Raw limits on the output tokens of a response, under any of their names."""
    choice_counts: tuple[object, ...] = ()
    """Raw numbers of choices that the request asks for."""
    questions: int = 1
    """Number of prompts that are answered each on its own."""
    tiers: tuple[object, ...] = ()
    """Raw service tier and speed that the request asks for."""
    alternatives: frozenset[str] = frozenset()
    """Other models that may respond: some routers behind an OpenAI-compatible URL take a list of them."""
    has_output: bool = True
    """Whether a response has output tokens: embeddings have none."""

    @property
    def max_output(self) -> int | None:
        """The most output tokens of one choice; None where the request sets no limit that could be read."""
        if not self.has_output:
            return 0
        return _most(self.output_bounds)

    @property
    def choices(self) -> int:
        return (_most(self.choice_counts) or 1) * self.questions

    @property
    def service_tiers(self) -> list[str]:
        """The service tiers that the request asks for."""
        return [tier for value in self.tiers if value is not None and type(tier := small(value)) is str]


def read_body(body: BodyText, wanted: frozenset[str]) -> Steps[Members]:
    """Return the wanted members of a request's body.

    Raises `GatewayError`, 400, where the body is not a JSON object or has a wanted member twice.
    """
    said = members_of(body)
    if type(said) is Value:
        yield from check(body)
    return (yield from read_members(said, wanted))


def model_of(members: Members) -> str:
    """Return the model that the request names. Raises `GatewayError`, 400."""
    value = members.get("model")
    if type(value) is Value and value.size > 6 * MAX_MODEL + 2:
        raise _long_model()
    model, _ = string(value, 4 * MAX_MODEL) or ("", False)
    if not model:
        raise GatewayError(400, "missing_model", "the request body names no model: 'model' must be a non-empty string")
    if len(model) > MAX_MODEL:
        raise _long_model()
    return model


def offers_no_tools(members: Members, *, instructed: bool) -> bool:
    """Whether a request instructs the model without offering it tools."""
    tools = members.get("tools")
    return not (is_list(tools) and says_something(tools)) and ("tools" in members or instructed)


def _most(values: tuple[object, ...]) -> int | None:
    """Return the largest count among these values, at most `MAX_COUNT`; None where there is none."""
    most = 0
    for value in values:
        if value is not None and (number := _number(small(value))) > most:
            most = int(min(number, MAX_COUNT))
    return most or None


def _number(value: object) -> float:
    """Return the number in a value, 0 where it is none. Lenient providers accept a number written as a string."""
    if type(value) is str:
        try:
            return float(value)
        except ValueError:
            return 0
    return value if type(value) is int or type(value) is float else 0


def _long_model() -> GatewayError:
    return GatewayError(400, "invalid_model", f"the model's name is longer than {MAX_MODEL} characters")
