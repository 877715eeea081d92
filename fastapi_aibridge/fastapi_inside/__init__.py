"""All that this package knows of FastAPI's inside: how a route was included, what dependencies declare, how to solve
them.

Everything here holds for FastAPI 0.137 and later as far as CI has run it, and nothing is relied on: what a release
does not tell, or tells in another way, comes out as None, and callers take the slower or the stricter way.
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
