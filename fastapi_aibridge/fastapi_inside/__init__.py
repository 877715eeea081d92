"""All knowledge of FastAPI's internals: how a route was included, what dependencies declare, how to solve them.

It holds for FastAPI 0.137 and later, as far as CI has run it. If a release does not have such an internal, or has
another form of it, functions return None, and callers fall back to a slower or stricter way.
"""

from .plans import Solved
from .routers import FlatRouter
from .routes import (
    Declared,
    Inclusion,
    calls_below,
    declared,
    everything_below,
    included_routers,
    inclusion,
    overrides,
    query_names,
    reads_body,
    route_key,
)
from .solving import FUNCTION, INNER, Solver, dependant_of, dependency_stacks, has_stacks

__all__ = [
    "FUNCTION",
    "INNER",
    "Declared",
    "FlatRouter",
    "Inclusion",
    "Solved",
    "Solver",
    "calls_below",
    "declared",
    "dependant_of",
    "dependency_stacks",
    "everything_below",
    "has_stacks",
    "included_routers",
    "inclusion",
    "overrides",
    "query_names",
    "reads_body",
    "route_key",
]
