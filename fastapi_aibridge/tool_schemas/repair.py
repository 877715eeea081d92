"""Rewrites one schema into the subset of JSON Schema that all providers are known to accept.

By their documentation and public reports, OpenAI refuses arrays without items, types that JSON does not have and
alternatives at the top; Anthropic refuses odd names of properties and anything that is invalid by draft 2020-12; Gemini
refuses references, lists of types, tuples, formats and keywords of its own choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from .keywords import constraints, described, enumeration, type_named, types_of
from .property_names import allowed_name
from .references import referred
from .visible_text import clean, shown

MAX_NESTING = 10
"""Levels of nested objects and lists, as OpenAI counts them for strict tools."""
MAX_SCHEMAS = 2000
"""Subschemas of one schema, after references have been followed."""
MAX_ALTERNATIVES = 32
"""Schemas in one `anyOf`, `allOf` or tuple."""
MAX_REFERENCES = 8
"""References that are followed one after another."""


class Repair:
    """The repair of one schema, from the top down. `plain` leaves out descriptions and deeply nested parts."""

    def __init__(self, root: Mapping[str, Any], *, plain: bool = False) -> None:
        self._root = root
        self._plain = plain
        self._left = MAX_SCHEMAS
        self._nesting = 3 if plain else MAX_NESTING
        self.own_names: dict[str, str] = {}
        self.remarks: dict[str, None] = {}

    def top(self) -> dict[str, Any]:
        """Return an object schema with properties and without alternatives, which allows all that those would allow."""
        schema = self._schema(self._root, 0, (), nullable=False)
        alternatives = [one for one in schema.pop("anyOf", ()) if isinstance(one.get("properties"), dict)]
        properties: dict[str, Any] = dict(schema.get("properties", {}))
        for one in alternatives:
            properties = {**one["properties"], **properties}
        required = list(schema.get("required", ()))
        if alternatives and not required:
            needed = [set(one.get("required", ())) for one in alternatives]
            required = [name for name in properties if all(name in names for names in needed)]
        schema = {"type": "object", **{name: value for name, value in schema.items() if name in _AT_THE_TOP}}
        schema["properties"] = properties
        if required:
            schema["required"] = required
        return schema

    def _schema(self, node: object, depth: int, path: tuple[str, ...], *, nullable: bool) -> dict[str, Any]:
        """Repair a subschema.

        `path` holds the references that led to it; `nullable` says whether null must stay possible.
        """
        if isinstance(node, str):
            node = {"type": node}
        if not isinstance(node, Mapping):
            if not isinstance(node, bool):
                self._remark("a part that is no schema allows anything now")
            return {}
        self._left -= 1
        if depth > self._nesting or self._left < 0:
            self._remark("it is nested too deeply or too large, and was simplified")
            return {}
        node, path, recursive = self._followed(node, path)
        if recursive:
            self._remark("a reference to itself ends after one round")
            return {"type": kind} if (kind := type_named(node.get("type"))) else {}
        node = self._merged(node, path)
        types = types_of(node)
        about = {} if self._plain else described(node)
        values = enumeration(node, types)
        if not types and values and all(isinstance(value, str) for value in values):
            types = ["string"]
        alternatives = self._alternatives(node, types, depth, path, nullable=nullable)
        if values and {"type": "null"} not in alternatives:
            values = [value for value in values if value is not None]
        if len(alternatives) == 1:
            alone = alternatives[0]
            return {**alone, **about, **({"enum": values} if values and "enum" not in alone else {})}
        schema = {**about, **({"anyOf": alternatives} if alternatives else {})}
        if values:
            schema["enum"] = values
        return schema

    def _alternatives(
        self, node: Mapping[str, Any], types: list[str], depth: int, path: tuple[str, ...], *, nullable: bool
    ) -> list[dict[str, Any]]:
        """Return one schema per type and per alternative that the schema names; null only where it must be."""
        named: list[Any] = next((node[name] for name in ("anyOf", "oneOf") if isinstance(node.get(name), list)), [])
        subschemas = [
            self._schema(one, depth, path, nullable=True)
            for one in named[:MAX_ALTERNATIVES]
            if not _says_only_required(one)
        ]
        typed = [self._typed(node, kind, depth, path) for kind in types if kind != "null"]
        if not subschemas:
            found = typed
        elif len(typed) == 1 and "properties" in typed[0]:
            found = [_both(typed[0], one) for one in subschemas if one.get("type", "object") == "object"] or typed
        else:
            base = typed[0] if len(typed) == 1 else {}
            found = [one if "type" in one or "anyOf" in one else {**base, **one} for one in subschemas]
        found = _unique(one for one in found if one.get("type") != "null")
        has_null = "null" in types or any(one.get("type") == "null" for one in subschemas)
        if has_null and (nullable or not found):
            found.append({"type": "null"})
        return found

    def _typed(self, node: Mapping[str, Any], kind: str, depth: int, path: tuple[str, ...]) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": kind, **constraints(node, kind)}
        if kind == "array":
            schema["items"] = self._items(node, depth, path)
        elif kind == "object":
            self._add_properties(schema, node, depth, path)
        return schema

    def _items(self, node: Mapping[str, Any], depth: int, path: tuple[str, ...]) -> dict[str, Any]:
        items = node.get("items", node.get("prefixItems"))
        if items is None:
            self._remark("an array that says nothing about its items may have any now")
            return {}
        places = items[:MAX_ALTERNATIVES] if isinstance(items, list) else [items]
        found = _unique(self._schema(one, depth + 1, path, nullable=True) for one in places)
        return found[0] if len(found) == 1 else {"anyOf": found} if found else {}

    def _add_properties(
        self, schema: dict[str, Any], node: Mapping[str, Any], depth: int, path: tuple[str, ...]
    ) -> None:
        declared = node.get("properties")
        declared = dict(islice(declared.items(), MAX_SCHEMAS)) if isinstance(declared, Mapping) else {}
        self._left -= len(declared) // 8  # reading them costs something, too
        required = _names(node.get("required"))
        stray = declared.get("required")
        if isinstance(stray, list):
            # A frequent slip: `required` one level too deep.
            required |= _names(stray)
            declared = {name: value for name, value in declared.items() if name != "required"}
            self._remark("`required` stood among its properties")
        required |= {name for name, one in declared.items() if isinstance(one, Mapping) and one.get("required") is True}
        properties, needed = {}, []
        for name, one in declared.items():
            if one is False:
                continue
            if self._left < 0:
                self._remark("it is nested too deeply or too large, and was simplified")
                break
            offered = allowed_name(name)
            if offered != name:
                self.own_names[offered] = name
                self._remark(f"its property {shown(name)} is offered as {offered!r}")
            properties[offered] = self._schema(one, depth + 1, path, nullable=name in required)
            if name in required:
                needed.append(offered)
        if "properties" in node or properties:
            schema["properties"] = properties
        if needed:
            schema["required"] = needed
        if len(needed) < len(required):
            self._remark("`required` names what is none of its properties")
        additional = node.get("additionalProperties")
        if isinstance(additional, bool):
            schema["additionalProperties"] = additional
        elif isinstance(additional, Mapping):
            schema["additionalProperties"] = self._schema(additional, depth + 1, path, nullable=True)

    def _followed(
        self, node: Mapping[str, Any], path: tuple[str, ...]
    ) -> tuple[Mapping[str, Any], tuple[str, ...], bool]:
        """Follow the node's reference; return its target, the path, and whether the reference is recursive.

        The node's own members take precedence over the target's.
        """
        for _ in range(MAX_REFERENCES):
            reference = node.get("$ref", node.get("$dynamicRef", node.get("$recursiveRef")))
            if reference is None:
                break
            own = {name: value for name, value in node.items() if name not in _REFERENCES}
            target = referred(self._root, reference)
            if target is None:
                self._remark("a reference that leads nowhere allows anything now")
                return own, path, False
            if reference in path:
                return target, path, True
            path = (*path, reference)
            self._left -= len(target) // 8
            node = {**target, **own}
        return node, path, False

    def _merged(self, node: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
        """Return the node with the schemas of its `allOf` merged into it."""
        parts = node.get("allOf")
        if not isinstance(parts, list):
            return node
        merged = {name: value for name, value in node.items() if name != "allOf"}
        for part in parts[:MAX_ALTERNATIVES]:
            if self._left < 0 or not isinstance(part, Mapping):
                continue
            followed, _, recursive = self._followed(part, path)
            if not recursive:
                merged = _both(merged, followed)
                properties = merged.get("properties")
                self._left -= 1 + (len(properties) // 8 if isinstance(properties, Mapping) else 0)
        return merged

    def _remark(self, text: str) -> None:
        if len(self.remarks) < 8:
            self.remarks[clean(text, 200)] = None


_REFERENCES = {"$ref", "$dynamicRef", "$recursiveRef"}
_AT_THE_TOP = {"title", "description", "additionalProperties", "minProperties", "maxProperties"}


def _both(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Combine two schemas: properties and required names of both, and any other keyword of the first that has it."""
    both = {**other, **one}
    properties = [each["properties"] for each in (other, one) if isinstance(each.get("properties"), Mapping)]
    if properties:
        both["properties"] = {name: value for each in properties for name, value in each.items()}
    required = [*sorted(_names(one.get("required"))), *sorted(_names(other.get("required")))]
    if required:
        both["required"] = list(dict.fromkeys(required))
    return both


def _names(value: object) -> set[str]:
    return {one for one in value[:MAX_SCHEMAS] if isinstance(one, str)} if isinstance(value, list) else set()


def _says_only_required(schema: object) -> bool:
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        return False
    return "required" in schema and schema.keys() <= {"required", "not", "type"}


def _unique(schemas: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for one in schemas:
        if one not in found:
            found.append(one)
    return found
