"""The members that were set in settings, as values that JSON and TOML can represent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, SecretStr

from ..budget import Budget


def plain_members(model: BaseModel, *, with_secrets: bool) -> dict[str, Any]:
    """Return the members that were set and are not empty; secrets only `with_secrets`."""
    # In the model's order: the order of a set differs between processes.
    given = {name: getattr(model, name) for name in type(model).model_fields if name in model.model_fields_set}
    return _members(given, with_secrets=with_secrets)


def _members(given: Mapping[Any, Any], *, with_secrets: bool) -> dict[str, Any]:
    told = {str(name): _value(value, with_secrets=with_secrets) for name, value in given.items()}
    return {name: value for name, value in told.items() if value not in (None, [], {})}


def _value(value: Any, *, with_secrets: bool) -> Any:
    """Return the plain value; None if it is left out."""
    match value:
        case BaseModel():
            return plain_members(value, with_secrets=with_secrets)
        case SecretStr():
            return value.get_secret_value() if with_secrets else None
        case Mapping():
            return _members(value, with_secrets=with_secrets)
        case tuple() | list():
            told = [_value(one, with_secrets=with_secrets) for one in value]
            return [one for one in told if one is not None]
        case re.Pattern():
            return value.pattern
        case Budget():
            members = {field.name: getattr(value, field.name) for field in fields(value)}
            return _members(members, with_secrets=with_secrets)
        case Decimal():
            return float(value)
        case None | bool() | int() | float():
            return value
    return str(value)
