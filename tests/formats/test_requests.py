"""Reading of requests: models, prompts and the members that affect the record."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_aibridge.errors import GatewayError
from fastapi_aibridge.formats import chat_completions, messages, responses
from fastapi_aibridge.formats.format import Format
from fastapi_aibridge.formats.prompts import Said, split
from fastapi_aibridge.formats.request import ModelRequest
from fastapi_aibridge.formats.scanner import finish

from .parsing import parse

FORMATS: list[Format] = [chat_completions, messages, responses]
each_format = pytest.mark.parametrize("format_", FORMATS, ids=lambda one: one.name)
REMINDER = "<system-reminder>Be kind.</system-reminder>"


def said_in(format_: Format, *said: Any, **members: Any) -> ModelRequest:
    name = "input" if format_ is responses else "messages"
    return parsed(format_, {"model": "m", name: said, **members})


def parsed(format_: Format, body: dict[str, Any]) -> ModelRequest:
    """Return the parsed request, after a check that its spaced and its compact JSON are read the same."""
    spaced = parse(format_, json.dumps(body).encode())
    compact = parse(format_, json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())
    assert replace(compact, body=b"") == replace(spaced, body=b"")
    assert json.loads(compact.body[:]) == json.loads(spaced.body[:])
    return compact


def refusal(format_: Format, body: bytes) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        parse(format_, body)
    return caught.value


def part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


@each_format
def test_nothing_hides_behind_other_parts(format_: Format) -> None:
    """A prompt is recorded with all parts and messages of the user's turn, also before instructions."""
    request = said_in(
        format_,
        {"role": "user", "content": "long ago"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": [part("real words"), part(".")]},
        {"role": "user", "content": "more"},
        {"role": "system", "content": "brief"},
    )
    assert [one.text for one in request.prompts] == ["real words", ".", "more"]
    assert {one.source for one in request.prompts} == {"user"}


@each_format
@pytest.mark.parametrize(
    "message",
    [
        {"role": "User", "content": "real words"},
        {"role": "human", "content": [part("real words")]},
        {"content": "real words"},
        {"role": None, "content": "real words"},
        {"role": "user", "content": part("real words")},
        {"role": "user", "type": "x_call_output", "content": "real words"},
    ],
)
def test_nothing_hides_behind_an_odd_role(format_: Format, message: dict[str, Any]) -> None:
    """Words in a message of an unusual role or form are recorded, because a lenient provider reads them."""
    request = said_in(format_, message, {"role": "user", "content": "."})
    assert [one.text for one in request.prompts] == ["real words", "."]


@each_format
def test_what_agents_add_is_told_apart(format_: Format) -> None:
    """Text in the tags that agents use is recorded with the source `agent`, and the text around it as the user's."""
    details = "<environment_details>\n# Files\na.py\n</environment_details>"
    request = said_in(
        format_, {"role": "user", "content": [part(REMINDER), part("Mend it."), part(f"Now.\n{details}")]}
    )
    assert request.prompts == [
        Said(REMINDER, "agent"),
        Said("Mend it."),
        Said("Now."),
        Said(details, "agent"),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("plain", [("plain", "user")]),
        ("a < b", [("a < b", "user")]),
        ("<b>bold</b>", [("<b>bold</b>", "user")]),
        ("<system-reminder>never closed", [("<system-reminder>never closed", "user")]),
        (f"{REMINDER} do {REMINDER}", [("do", "user"), (f"{REMINDER}\n{REMINDER}", "agent")]),
        (f"a{REMINDER}b", [("a\nb", "user"), (REMINDER, "agent")]),
        (" untouched ", [(" untouched ", "user")]),
        (
            "# AGENTS.md instructions for /work\n\n<INSTRUCTIONS>x</INSTRUCTIONS>",
            [("# AGENTS.md instructions for /work\n\n<INSTRUCTIONS>x</INSTRUCTIONS>", "agent")],
        ),
    ],
)
def test_splitting(text: str, found: list[tuple[str, str]]) -> None:
    """A text is split at the tags of agents only, and is otherwise left unchanged."""
    assert split(text) == found


@each_format
def test_very_many_parts_are_all_kept(format_: Format) -> None:
    """All parts are kept, the later ones joined, so that the number of rows is bounded."""
    request = said_in(format_, {"role": "user", "content": [part(f"word {number}") for number in range(1000)]})
    assert len(request.prompts) <= 66
    assert "\n".join(one.text for one in request.prompts) == "\n".join(f"word {number}" for number in range(1000))


@each_format
def test_more_parts_than_anybody_writes_are_refused(format_: Format) -> None:
    """A message of 25,000 parts is refused with 400, because parts must not go unread."""
    parts = [part(".")] * 25_000
    body = {"model": "m", "input" if format_ is responses else "messages": [{"role": "user", "content": parts}]}
    assert refusal(format_, json.dumps(body).encode()).status == 400


@each_format
@pytest.mark.parametrize("letter", ["a", "\u00e4", "\U0001f600", "\n"])
def test_long_texts_are_cut_where_they_are_read(format_: Format, letter: str) -> None:
    """A prompt is cut to the given number of bytes and marked as truncated."""
    for ascii_only in (True, False):
        name = "input" if format_ is responses else "messages"
        message = {"role": "user", "content": letter * 40_000}
        body = json.dumps({"model": "m", name: [message]}, ensure_ascii=ascii_only).encode()
        [prompt] = finish(format_.read(body, 1001)).prompts
        assert prompt.truncated
        assert prompt.text == letter * len(prompt.text)
        assert 1001 - 4 < len(prompt.text.encode()) <= 1001
        [prompt] = finish(format_.read(body, 200_000)).prompts
        assert (prompt.text, prompt.truncated) == (letter * 40_000, False)


@each_format
def test_all_texts_together_have_a_bound(format_: Format) -> None:
    """All prompts together are bounded, and the last one kept is marked as truncated."""
    name = "input" if format_ is responses else "messages"
    body = json.dumps({"model": "m", name: [{"role": "user", "content": [part("x" * 600)] * 5}]}).encode()
    prompts = finish(format_.read(body, 1000)).prompts
    assert [len(one.text) for one in prompts] == [600, 400]
    assert [one.truncated for one in prompts] == [False, True]


@each_format
def test_models_have_a_length(format_: Format) -> None:
    """A model name has at most 256 characters, however they are encoded."""
    for letter in ("m", "\u00e4"):
        assert parse(format_, json.dumps({"model": letter * 256}).encode()).model == letter * 256
        error = refusal(format_, json.dumps({"model": letter * 257}).encode())
        assert (error.status, error.code) == (400, "invalid_model")
    assert refusal(format_, b'{"model":"' + b"m" * 1_000_000 + b'"}').code == "invalid_model"


@each_format
@pytest.mark.parametrize(
    "twice",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{"model":"a","Model":"b"}',
        b'{"model":"a","stream":true,"stream":false}',
        b'{"model":"a","tools":[],"tools":[1]}',
        b'{"model":"a","x":"' + b"x" * 600_000 + b'","model":"b"}',
    ],
)
def test_members_that_are_read_stand_once(format_: Format, twice: bytes) -> None:
    """A duplicate of a member that the gateway reads is refused: the provider might use the other value."""
    error = refusal(format_, twice)
    assert (error.status, error.code) == (400, "duplicate_member")


@each_format
@pytest.mark.parametrize(
    "message",
    [
        b'{"role":"user","content":"a","content":"b"}',
        b'{"role":"user","role":"assistant","content":"b"}',
        b'{"role":"user","content":[{"type":"text","text":"a","text":"b"}]}',
    ],
)
def test_so_do_those_of_the_messages_that_are_read(format_: Format, message: bytes) -> None:
    """Duplicate members in the messages and parts that are read are refused."""
    name = b"input" if format_ is responses else b"messages"
    assert refusal(format_, b'{"model":"a","%b":[%b]}' % (name, message)).code == "duplicate_member"


@each_format
def test_other_members_may_stand_twice(format_: Format) -> None:
    """Duplicates of members that the gateway does not read are left to the provider."""
    body = b'{"model":"a","seed":1,"seed":2}'
    assert parse(format_, body).body == body


@each_format
@pytest.mark.parametrize("size", [0, 700_000])
def test_deep_nesting_is_refused(format_: Format, size: int) -> None:
    """Nesting that is too deep is refused with an error that says so, in small and large bodies."""
    deep = b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b',"y":"' + b"y" * size + b'"}'
    error = refusal(format_, deep)
    assert (error.status, error.code) == (400, "invalid_json")
    assert "nested" in error.message


@each_format
@pytest.mark.parametrize("size", [10, 100_000, 700_000])
def test_bytes_that_are_no_utf8_are_refused(format_: Format, size: int) -> None:
    """Invalid UTF-8 is refused anywhere in a body of any size."""
    assert refusal(format_, b'{"model":"m","x":["' + b"y" * size + b'\xff"]}').code == "invalid_json"


@each_format
def test_a_byte_order_mark_is_passed_on(format_: Format) -> None:
    """A byte order mark is sent upstream unchanged, because some servers accept it."""
    body = b'\xef\xbb\xbf{"model":"m"}'
    request = parse(format_, body)
    assert (request.model, request.body) == ("m", body)


@each_format
def test_large_bodies_are_read_like_small_ones(format_: Format) -> None:
    """A large body is read like a small one, whatever its text, structure and order of members."""
    filling = {"role": "assistant", "content": [part('He said, "x", {and} [so] on\\') for _ in range(20_000)]}
    name = "input" if format_ is responses else "messages"
    body = {name: [filling, {"role": "user", "content": [part("Hi"), part("there")]}], "model": "m", "stream": True}
    request = parse(format_, json.dumps(body).encode())
    assert (request.model, request.streaming) == ("m", True)
    assert [one.text for one in request.prompts] == ["Hi", "there"]


def test_a_stored_prompt_names_its_model() -> None:
    """A Responses request with a stored prompt needs no model."""
    request = parse(responses, b'{"prompt":{"id":"pmpt_1","version":"2"},"input":"x"}')
    assert (request.model, [one.text for one in request.prompts]) == ("", ["x"])
    assert refusal(responses, b'{"prompt":"pmpt_1"}').code == "missing_model"
    assert refusal(responses, b'{"prompt":{"id":"pmpt_1"},"model":5}').code == "missing_model"
    assert refusal(messages, b'{"prompt":{"id":"pmpt_1"}}').code == "missing_model"


@each_format
@pytest.mark.parametrize(
    ("tools", "none"), [(b"[]", True), (b"[ ]", True), (b"null", True), (b'[{"type":"x"}]', False), (None, False)]
)
def test_whether_the_client_offers_tools(format_: Format, tools: bytes | None, none: bool) -> None:
    """An empty list or null offers no tools; a request without the member leaves it open."""
    member = b',"tools":%b' % tools if tools else b""
    assert parse(format_, b'{"model":"m"%b}' % member).offers_no_tools is none


@pytest.mark.parametrize(
    ("format_", "body"),
    [
        (chat_completions, {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}),
        (
            chat_completions,
            {"messages": [{"role": "developer", "content": "s"}, {"role": "assistant"}, {"role": "tool"}]},
        ),
        (messages, {"system": "s", "messages": []}),
        (messages, {"system": [{"type": "text", "text": "s"}], "messages": []}),
        (responses, {"instructions": "s", "input": "u"}),
        (responses, {"input": [{"role": "developer", "content": "s"}, {"role": "user", "content": "u"}]}),
    ],
)
def test_instructions_without_tools_offer_none(format_: Format, body: dict[str, Any]) -> None:
    """A request with instructions but without tools, as agents send it to get a title, offers none."""
    assert parse(format_, json.dumps({"model": "m", **body}).encode()).offers_no_tools
    assert not parse(format_, json.dumps({"model": "m", **body, "tools": [{}]}).encode()).offers_no_tools


_WORDS = ("", "user", "assistant", "tool", "text", "\u00e4<b>")
_INNER_NAMES = ("role", "content", "type", "text", "id", "tool_call_id", "include_usage", "user_id", "Role")
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.sampled_from(_WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_INNER_NAMES), inner, max_size=4),
    max_leaves=12,
)
_NAMES = (
    "stream", "stream_options", "messages", "input", "tools", "n", "functions", "system", "metadata",
    "instructions", "background", "prompt", "previous_response_id", "conversation",
)  # fmt: skip


@each_format
@settings(max_examples=50, deadline=None)
@given(members=st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=6))
def test_odd_members_are_read_the_same_however_they_are_written(format_: Format, members: dict[str, Any]) -> None:
    outcomes: list[object] = []
    for separators in ((", ", ": "), (",", ":")):
        body = json.dumps({"model": "m", **members}, separators=separators, ensure_ascii=False).encode()
        try:
            request = parse(format_, body)
            bounds = (request.max_output, request.choices)  # in place of the raw values, which are other objects
            outcomes.append((replace(request, body=b"", output_bounds=(), choice_counts=()), bounds))
        except GatewayError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("size", [0, 20_000, 600_000])
@pytest.mark.parametrize("name", ["Previous_Response_Id", "PREVIOUS_RESPONSE_ID", "previous_response_ID"])
def test_members_are_read_in_whatever_case(name: str, size: int) -> None:
    """Names of members are read in any case, because some providers accept them, and count as duplicates."""
    body = json.dumps({"Model": "gpt-5", name: "resp_1", "input": "x" * size}, separators=(",", ":")).encode()
    request = parse(responses, body)
    assert request.model == "gpt-5"
    assert [(one.kind, one.id) for one in request.references] == [("response", "resp_1")]
    with pytest.raises(GatewayError, match="twice"):
        parse(responses, body.replace(b'"Model"', b'"model":"gpt-4","Model"'))


@pytest.mark.parametrize("options", ["{}", '{"include_usage":false}', "null", "1"])
def test_options_in_another_case_are_left_alone(options: str) -> None:
    """`stream_options` in another case is not edited: adding the option would duplicate the member."""
    body = b'{"model":"m","stream":true,"messages":[],"Stream_Options":%b}' % options.encode()
    assert parse(chat_completions, body).body == body
