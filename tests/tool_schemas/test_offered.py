"""Schemas that tools declare, and the schemas that are offered to models in their place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastapi_aibridge.tool_schemas import offered_schema, restored
from fastapi_aibridge.tool_schemas.offered import MAX_SIZE
from tests import processor_time
from tests.processor_time import least

from .providers import refusals

STRING = {"type": "string"}
DEFS = {
    "Color": {"type": "string", "enum": ["red", "blue"], "title": "Color"},
    "Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "name": STRING}},
    "Alias": {"$ref": "#/$defs/Color"},
}


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    "schema",
    [
        of(),
        of(text=STRING),
        {**of(text=STRING, n={"type": "integer", "minimum": 1, "maximum": 9, "default": 2}), "required": ["text"]},
        {**of(tags={"type": "array", "items": STRING, "minItems": 1}), "additionalProperties": False},
        of(kind={"type": "string", "enum": ["a", "b"], "description": "Which."}),
        of(any={"anyOf": [STRING, {"type": "number"}]}),
        of(when={"type": "string", "format": "date-time", "pattern": "^2"}),
        of(map={"type": "object", "additionalProperties": {"type": "number"}}),
    ],
)
def test_what_all_providers_take_stays_as_it_is(schema: dict[str, Any]) -> None:
    """A schema that all providers accept is offered unchanged and without remarks."""
    offered = offered_schema(schema)
    assert (offered.schema, offered.remarks, offered.own_names) == (schema, (), {})
    assert refusals(schema) == []


@pytest.mark.parametrize(
    ("declared", "offered"),
    [
        # Types
        ({"type": ["string", "null"]}, {"type": "string"}),
        ({"type": ["string"]}, {"type": "string"}),
        ({"type": ["string", "number"]}, {"anyOf": [{"type": "string"}, {"type": "number"}]}),
        ({"type": ["array", "null"], "items": STRING}, {"type": "array", "items": STRING}),
        ({"type": "STRING"}, {"type": "string"}),
        ({"type": "int", "minimum": 1}, {"type": "integer", "minimum": 1}),
        ({"type": "any", "description": "d"}, {"description": "d"}),
        ({"type": "string", "nullable": True}, {"type": "string"}),
        ({"type": None}, {}),
        ("string", {"type": "string"}),
        (True, {}),
        ({"properties": {"a": STRING}}, of(a=STRING)),
        # Lists
        ({"type": "array"}, {"type": "array", "items": {}}),
        ({"type": "array", "items": True}, {"type": "array", "items": {}}),
        (
            {"type": "array", "items": [STRING, {"type": "number"}]},
            {"type": "array", "items": {"anyOf": [STRING, {"type": "number"}]}},
        ),
        ({"type": "array", "prefixItems": [STRING, STRING]}, {"type": "array", "items": STRING}),
        # References
        ({"$ref": "#/$defs/Color"}, {"type": "string", "enum": ["red", "blue"], "title": "Color"}),
        (
            {"$ref": "#/$defs/Alias", "description": "d"},
            {"type": "string", "enum": ["red", "blue"], "title": "Color", "description": "d"},
        ),
        ({"$ref": "#/properties/other"}, STRING),
        ({"$ref": "https://example.com/schema.json", "description": "d"}, {"description": "d"}),
        ({"$ref": "#/$defs/Nothing"}, {}),
        ({"$ref": "#/$defs/Node"}, of(next={"type": "object"}, name=STRING)),
        (
            {"allOf": [{"$ref": "#/$defs/Color"}], "default": "red"},
            {"type": "string", "enum": ["red", "blue"], "title": "Color", "default": "red"},
        ),
        # Alternatives
        ({"anyOf": [STRING, {"type": "null"}], "default": None}, {"type": "string", "default": None}),
        ({"oneOf": [STRING, {"type": "number"}]}, {"anyOf": [STRING, {"type": "number"}]}),
        (
            {"anyOf": [{"const": "a"}, {"const": "b"}]},
            {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "string", "enum": ["b"]}]},
        ),
        ({"allOf": [of(a=STRING), {**of(b=STRING), "required": ["b"]}]}, {**of(b=STRING, a=STRING), "required": ["b"]}),
        ({"allOf": [{}], "properties": None}, {}),
        ({"allOf": [of(a=STRING)], "properties": 5}, of(a=STRING)),
        ({**of(a=STRING, b=STRING), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, of(a=STRING, b=STRING)),
        # Values
        ({"type": "string", "enum": []}, STRING),
        ({"type": "string", "enum": ["a", "a", None, 1]}, {"type": "string", "enum": ["a"]}),
        ({"type": "integer", "enum": [1, 2]}, {"type": "integer", "enum": [1, 2]}),
        ({"const": "a"}, {"type": "string", "enum": ["a"]}),
        ({"type": "string", "enum": [str(n) for n in range(2000)]}, STRING),
        # Keywords
        ({"type": "string", "format": "email"}, {"type": "string", "description": "(format: email)"}),
        (
            {"type": "string", "format": "uri", "description": "A page."},
            {"type": "string", "description": "A page. (format: uri)"},
        ),
        ({"type": "string", "pattern": "^(?=x)"}, {"type": "string", "description": "(pattern: ^(?=x))"}),
        ({"type": "string", "pattern": "(["}, {"type": "string", "description": "(pattern: ([)"}),
        ({"type": "string", "examples": ["a", "b"]}, {"type": "string", "description": '(examples: ["a","b"])'}),
        ({"type": "number", "minimum": "0", "multipleOf": 0, "maximum": 5}, {"type": "number", "maximum": 5}),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, {"type": "integer", "exclusiveMinimum": 3}),
        ({"type": "string", "minLength": -1, "maxLength": 3.0, "minimum": 1}, {"type": "string", "maxLength": 3}),
        ({"type": "string", "description": 7, "title": [], "deprecated": True, "x-order": 1}, STRING),
        ({"type": "object", "patternProperties": {"^a": STRING}, "propertyNames": STRING}, {"type": "object"}),
        ({"type": "object", "additionalProperties": "no"}, {"type": "object"}),
    ],
)
def test_what_is_refused_is_rewritten(declared: object, offered: dict[str, Any]) -> None:
    """A property that some provider refuses is replaced by one that all accept."""
    schema = offered_schema(
        {**of(it=declared, other=STRING), "$defs": DEFS, "$schema": "http://json-schema.org/draft-07/schema#"}
    )
    assert schema.schema == of(it=offered, other=STRING)
    assert refusals(schema.schema) == []


def test_null_stays_possible_where_a_value_is_required() -> None:
    """A required property that allows null keeps the null type, so that a model can leave it empty."""
    required = offered_schema({**of(a={"type": ["string", "null"], "description": "d"}), "required": ["a"]}).schema
    assert required["properties"]["a"] == {"description": "d", "anyOf": [STRING, {"type": "null"}]}


@pytest.mark.parametrize(
    ("declared", "required"),
    [
        ({**of(a=STRING), "required": ["a", "gone", 7, "a"]}, ["a"]),
        ({**of(a=STRING), "required": True}, []),
        (of(a=STRING, required=["a"]), ["a"]),
        (of(a={**STRING, "required": True}, b=STRING), ["a"]),
        ({**of(required=STRING), "required": ["required"]}, ["required"]),
    ],
)
def test_required_names_properties_alone(declared: dict[str, Any], required: list[str]) -> None:
    """Only names of properties stay required; a `required` in the wrong place is moved or dropped."""
    schema = offered_schema(declared).schema
    assert schema.get("required", []) == required
    assert refusals(schema) == []


@pytest.mark.parametrize("alternatives", ["anyOf", "oneOf"])
def test_alternatives_at_the_top_become_one_object(alternatives: str) -> None:
    """Alternatives at the top become one object with all properties; those that every alternative requires stay so."""
    one, other = {**of(a=STRING, b=STRING), "required": ["a", "b"]}, {**of(a=STRING, c=STRING), "required": ["a"]}
    schema = offered_schema({"type": "object", alternatives: [one, other]}).schema
    assert schema["properties"] == {"a": STRING, "b": STRING, "c": STRING}
    assert schema["required"] == ["a"]


@pytest.mark.parametrize(
    "schema",
    [{}, {"type": "string"}, {"type": "array"}, {"$ref": "#"}, {"type": None}, {"properties": []}, {"anyOf": 7}],
)
def test_the_top_is_always_an_object(schema: dict[str, Any]) -> None:
    """Every schema becomes an object at the top, whatever a tool declares."""
    assert offered_schema(schema).schema == {"type": "object", "properties": {}}


def test_odd_names_of_properties_come_back_in_the_arguments() -> None:
    """Unusual property names are replaced and restored in the arguments at any depth; other names and values stay."""
    odd = "x" * 80
    declared = {
        **of(**{"$.xgafv": STRING, "täg": STRING, "": STRING, odd: STRING, "fine-1.x": STRING}),
        "required": ["$.xgafv", odd],
    }
    declared["properties"]["rows"] = {"type": "array", "items": of(**{"a b": STRING, "ab": STRING})}
    offered = offered_schema(declared)
    assert refusals(offered.schema) == []
    names = list(offered.schema["properties"])
    assert names[4] == "fine-1.x"
    row = list(offered.schema["properties"]["rows"]["items"]["properties"])
    arguments = dict.fromkeys(names[:5], "v") | {"rows": [{row[0]: row[0], row[1]: 1}], "other": {"x": [1]}}
    assert restored(arguments, offered.own_names) == {
        "$.xgafv": "v",
        "täg": "v",
        "": "v",
        odd: "v",
        "fine-1.x": "v",
        "rows": [{"a b": row[0], "ab": 1}],
        "other": {"x": [1]},
    }
    assert set(offered.schema["required"]) == {names[0], names[3]}
    assert any("xgafv" in remark for remark in offered.remarks)


def test_two_odd_names_never_become_one() -> None:
    """Names that differ only in replaced characters stay different."""
    offered = offered_schema(of(**{"a b": STRING, "a?b": STRING, "a_b": STRING}))
    assert len(offered.schema["properties"]) == 3


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = STRING
    for _ in range(levels):
        schema = of(a=schema)
    return schema


def laughing(levels: int, width: int) -> dict[str, Any]:
    """Return a schema in which each level refers to the next one many times."""
    defs = {f"l{n}": of(**{f"p{m}": {"$ref": f"#/$defs/l{n + 1}"} for m in range(width)}) for n in range(levels)}
    return {**of(a={"$ref": "#/$defs/l0"}), "$defs": {**defs, f"l{levels}": STRING}}


WORST: dict[str, dict[str, Any]] = {
    "deep": nested(200),
    "references to references": laughing(20, 20),
    "wide references": {
        **of(**{f"p{n}": {"$ref": "#/$defs/w"} for n in range(900)}),
        "$defs": {"w": of(**{f"q{n}": STRING for n in range(3000)})},
    },
    "all of the same": {
        **of(a={"allOf": [{"$ref": "#/$defs/w"}] * 2000}),
        "$defs": {
            "w": {**of(**{f"q{n}": {"allOf": [{"$ref": "#/$defs/v"}] * 30} for n in range(30)})},
            "v": of(**{f"r{n}": STRING for n in range(2000)}),
        },
    },
    "many properties": of(**{f"p{n}": {"type": ["string", "null"]} for n in range(8000)}),
    "many required": {**of(a=STRING), "required": [f"p{n}" for n in range(20000)]},
    "many types": of(a={"type": ["string"] * 30000}),
    "many alternatives": of(a={"anyOf": [{"type": "string", "description": f"{n}"} for n in range(5000)]}),
    "many values": of(**{f"p{n}": {"$ref": "#/$defs/e"} for n in range(900)})
    | {"$defs": {"e": {"enum": list(range(20000))}}},
    "long texts": of(**{f"p{n}": {"type": "string", "description": "d" * 2000} for n in range(100)}),
    "a circle of references": {
        **of(a={"$ref": "#/$defs/a"}),
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
    },
    "a circle of alternatives": {
        **of(a={"$ref": "#/$defs/a"}),
        "$defs": {
            "a": {"anyOf": [{"$ref": "#/$defs/b"}] * 30},
            "b": {"oneOf": [{"$ref": "#/$defs/a"}, of(x={"$ref": "#/$defs/a"})] * 15},
        },
    },
    "a long pattern": of(a={"type": "string", "pattern": "(" * 400 + "a" + ")+" * 400}),
    "huge": of(**{f"p{n}": {"type": "string", "description": "d" * 400} for n in range(800)}),
}


@pytest.mark.parametrize("name", WORST)
def test_the_worst_schemas_are_done_with_soon(name: str) -> None:
    """A hostile schema is converted in bounded time and size to one that all providers accept, with few remarks."""
    assert least(lambda: processor_time.of(lambda: offered_schema(WORST[name])), 0.2) < 0.2
    offered = offered_schema(WORST[name])
    assert len(json.dumps(offered.schema)) < 2 * MAX_SIZE
    assert refusals(offered.schema) == []
    assert len(offered.remarks) <= 9


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYWORDS = st.sampled_from(
    [
        "type",
        "properties",
        "required",
        "items",
        "prefixItems",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "allOf",
        "not",
        "$ref",
        "$defs",
        "additionalProperties",
        "minimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "pattern",
        "format",
        "nullable",
        "default",
        "description",
        "title",
        "uniqueItems",
        "maxItems",
        "examples",
        "x-own",
    ]
)
WORDS = st.sampled_from(["string", "object", "array", "null", "integer", "#", "#/properties/a", "#/$defs/b", "a", ""])
SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    JSON | WORDS,
    lambda inner: (
        st.dictionaries(KEYWORDS, inner, max_size=5)
        | st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "$c", "required"]), inner, max_size=3)
    ),
    max_leaves=30,
)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(KEYWORDS, SCHEMAS, max_size=6))
@example({"allOf": [{}], "properties": None})
@example({"allOf": [{"properties": 1}], "properties": 1})
def test_whatever_is_declared_is_taken(schema: dict[str, Any]) -> None:
    """No schema raises or is offered in a form that some provider refuses."""
    offered = offered_schema(schema)
    assert refusals(offered.schema) == []
    assert offered_schema(offered.schema).schema == offered.schema  # a second conversion changes nothing
