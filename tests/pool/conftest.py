import pytest

from .bridges import Bridges
from .clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bridges() -> Bridges:
    return Bridges()
