"""Messages for settings that do not validate, or that look like a mistake. They never show values."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from .sections import ProviderSettings
from .sources import PREFIX, read_config_file

logger = logging.getLogger(__name__)

_FORMS = {
    "list_type": '["first", "second"]',
    "tuple_type": '["first", "second"]',
    "dict_type": '{"name": "value"}',
    "model_type": '{"name": "value"}',
}
"""The kind of error, and how the value would be written as JSON."""


def explain(error: ValidationError, settings: type[BaseModel], config_file: Path | None) -> str:
    """Return the errors by variable or member of the file, without the values, which may be secrets."""
    file = {} if config_file is None else read_config_file(config_file)
    lines = []
    for problem in error.errors(include_input=False, include_context=False, include_url=False):
        loc = [part for part in problem["loc"] if isinstance(part, str)]
        variable = PREFIX + "__".join(part.upper() for part in loc)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "there is no such setting; " + _meant(settings, loc)
        elif form := _FORMS.get(problem["type"]):
            message = f"{message}, written as JSON: {form}"
        place = [part + 1 for part in problem["loc"] if isinstance(part, int) and part]
        if place:
            message = f"item {place[-1]}: {message}"
        line = message if message.startswith(PREFIX) else f"{variable.removesuffix('_')}: {message}"
        if loc and _in_file(loc, file):
            line += f" (in {config_file}: {'.'.join(loc)})"
        lines.append(line)
    return "; ".join(lines)


def _meant(settings: type[BaseModel], loc: Sequence[str]) -> str:
    members = _members(settings, loc[:-1])
    near = difflib.get_close_matches(loc[-1].lower(), members, n=1, cutoff=0.6)
    if near:
        return f"did you mean {PREFIX}{'__'.join(part.upper() for part in (*loc[:-1], near[0]))}?"
    return f"there are {', '.join(name.upper() for name in members)}" if members else "look for a typing error"


def _members(model: type[BaseModel], loc: Iterable[str]) -> list[str]:
    """Return the names of the members of the section at this place of the settings."""
    place: Any = model
    for part in loc:
        if isinstance(place, type) and issubclass(place, BaseModel):
            field = place.model_fields.get(part)
            place = field.annotation if field else None
        else:  # a name that users choose, in a dict of sections
            place = next((one for one in get_args(place) if one is not str), None)
    return sorted(place.model_fields) if isinstance(place, type) and issubclass(place, BaseModel) else []


def _in_file(loc: Sequence[str], file: Mapping[str, Any]) -> bool:
    """Whether the value at this place comes from the file: it is there, and no variable overrides it."""
    value: Any = file
    for part in loc:
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    variables = (name.lower().removeprefix(PREFIX.lower()).split("__") for name in os.environ)
    return not any(parts == list(loc[: len(parts)]) for parts in variables)


def warn_of_unknown(environ: Mapping[str, str], fields: set[str], sections: Iterable[str]) -> None:
    """Warn of unknown variables. No error: Kubernetes sets `AIBRIDGE_SERVICE_HOST` for a service of our name."""
    for variable in environ:
        if not variable.upper().startswith(PREFIX):
            continue
        name = variable.upper().removeprefix(PREFIX).partition("__")[0].lower()
        if name in fields:
            continue
        if section := next((field for field in sections if name.startswith(f"{field}_")), None):
            logger.warning("%s is not a setting; levels are parted by two underscores: %s%s__...",
                           variable, PREFIX, section.upper())  # fmt: skip
        elif near := difflib.get_close_matches(name, fields, n=1, cutoff=0.75):
            logger.warning("%s is not a setting; did you mean %s%s?", variable, PREFIX, near[0].upper())


def warn_of_unnamed(directory: Path, fields: set[str]) -> None:
    """Warn of secret files whose names lack the prefix."""
    for file in sorted(directory.iterdir()):
        if file.name.lower().partition("__")[0] in fields:
            logger.warning("the secret %s is not read; if it is a setting, call it as its variable: %s%s",
                           file, PREFIX, file.name.upper())  # fmt: skip


def warn_of_base_urls(providers: Mapping[str, ProviderSettings]) -> None:
    """Warn of base URLs that lack the version path which the vendor's SDK expects, or have it twice."""
    for name, provider in providers.items():
        if provider.base_url is not None and (problem := _base_url_problem(provider.type, str(provider.base_url))):
            logger.warning("%sPROVIDERS__%s__BASE_URL %s", PREFIX, name.upper(), problem)


def _base_url_problem(type_: str, url: str) -> str | None:
    return next(_base_url_problems(type_, url.rstrip("/")), None)


def _base_url_problems(type_: str, url: str) -> Iterator[str]:
    if match := re.search(r"/(chat/completions|completions|responses|messages|embeddings)$", url):
        yield f"ends in /{match[1]}: it is the address below which that path is, so leave it out"
    if re.search(r"/v1/v1$", url):
        yield "has /v1 twice"
    if type_ == "anthropic" and url.endswith("/v1"):
        yield "ends in /v1, which the gateway adds itself for this type: requests would go to /v1/v1/messages"
    if type_ == "openai" and not re.search(r"/v\d", url):
        yield (
            "has no version path: requests go to /chat/completions below it, where most servers have "
            "/v1/chat/completions; add /v1 if they answer 404"
        )
