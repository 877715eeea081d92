"""A check that code leaves no reference cycles behind."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def nothing_left(part: str = "fastapi_aibridge") -> Iterator[None]:
    """Assert that the block leaves no objects of this part of the package to the cyclic garbage collector.

    A smaller part is less likely to be disturbed by objects that an earlier test left behind.
    """
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not [kind for kind in kinds if kind.startswith(part)], kinds
