"""An intercepted request, as far as the gateway has to understand it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import GatewayError
from .large_text import BodyText, Steps
from .members import Members, Value, check, is_list, members_of, read_members, says_something, small, string
from .prompts import Said
from .references import Reference

MAX_MODEL = 256
"""Characters of a model's name. Records, metrics and circuit breakers go by it."""
MAX_COUNT = 1_000_000_000
"""Tokens or choices that a request may ask for; more are taken for so many."""
MAX_TEXT = 1024 * 1024
"""Bytes of what the user said that are kept, unless the caller says otherwise."""


@dataclass(slots=True, kw_only=True)
class ModelRequest:
    """What is read of a request before it goes upstream."""

    model: str
    """Empty where the provider knows the model from what the request names instead."""
    streaming: bool
    body: BodyText
    """What goes upstream: the client's bytes, edited only where the format needs it."""
    prompts: list[Said] = field(default_factory=list)
    """What the user said since the last answer, and what the client put beside it."""
    correlating_tool_call_id: str | None = None
    user_id: str | None = None
    """`metadata.user_id`, where clients hide their session."""
    references: list[Reference] = field(default_factory=list)
    """What it names that is stored at the provider."""
    background: bool = False
    """Whether the provider goes on with it when the request is over."""
    takes_tools: bool = True
    """Whether tools can be injected into it."""
    offers_no_tools: bool = False
    """Whether it says what the model is to do, and that without tools: by an empty list, or by instructions alone."""
    usage_asked: bool = True
    """Whether the client itself asked a streamed chat for its usage."""
    output_bounds: tuple[object, ...] = ()
    """What it says of the length of an answer, under any of its names."""
    choice_counts: tuple[object, ...] = ()
    """What it says of how many answers it wants."""
    questions: int = 1
    """How many prompts it holds that are answered each on its own."""
    tiers: tuple[object, ...] = ()
    """What it says of the service tier, and of the speed, at which it wants to be answered."""
    alternatives: frozenset[str] = frozenset()
    """Other models that may answer: some routers behind an OpenAI-compatible URL take a list of them."""
    has_output: bool = True
    """Whether an answer has tokens of its own: embeddings have none."""

    @property
    def max_output(self) -> int | None:
        """The most tokens of one answer; None where the request sets no bound that could be read."""
        if not self.has_output:
            return 0
        return _most(self.output_bounds)

    @property
    def choices(self) -> int:
        return (_most(self.choice_counts) or 1) * self.questions

    @property
    def service_tiers(self) -> list[str]:
        """Those that it asks for."""
        return [tier for value in self.tiers if value is not None and type(tier := small(value)) is str]


def read_body(body: BodyText, wanted: frozenset[str]) -> Steps[Members]:
    """The wanted members of a request's body, the stream flag and the model among them.

    Raises `GatewayError`, 400: the body is no JSON object, or names a member twice that is wanted.
    """
    said = members_of(body)
    if type(said) is Value:
        yield from check(body)
    return (yield from read_members(said, wanted))


def model_of(members: Members) -> str:
    """The model that the request names. Raises `GatewayError`, 400."""
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
    """Whether a request says what the model is to do, and that without tools."""
    tools = members.get("tools")
    return not (is_list(tools) and says_something(tools)) and ("tools" in members or instructed)


def _most(values: tuple[object, ...]) -> int | None:
    """The largest of the counts among these values; None where there is none."""
    most = 0
    for value in values:
        if value is not None and (number := _number(small(value))) > most:
            most = int(min(number, MAX_COUNT))
    return most or None


def _number(value: object) -> float:
    """Lenient providers take a number that is written as a text."""
    if type(value) is str:
        try:
            return float(value)
        except ValueError:
            return 0
    return value if type(value) is int or type(value) is float else 0


def _long_model() -> GatewayError:
    return GatewayError(400, "invalid_model", f"the model's name is longer than {MAX_MODEL} characters")
