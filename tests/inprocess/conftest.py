from collections.abc import AsyncIterator

import pytest

from .doors import Doors, doors_of


@pytest.fixture(scope="module")
async def open_doors() -> AsyncIterator[Doors]:
    async with doors_of() as doors:
        yield doors


@pytest.fixture
def doors(open_doors: Doors) -> Doors:
    open_doors.clear()
    return open_doors
