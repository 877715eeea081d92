from collections.abc import AsyncIterator

import pytest

from .harness import GatewayHarness, harness_of


@pytest.fixture(scope="module")
async def running_harness() -> AsyncIterator[GatewayHarness]:
    async with harness_of() as harness:
        yield harness


@pytest.fixture
def harness(running_harness: GatewayHarness) -> GatewayHarness:
    running_harness.clear()
    return running_harness
