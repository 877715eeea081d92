from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from fastapi_aibridge.testing import Reply, ScriptedProvider

from .apps import Model


@pytest.fixture
def unfrozen() -> Iterator[None]:
    """The garbage collector as Python has it, without what the run of the tests has done to it."""
    gc.unfreeze()
    yield
    gc.freeze()


@pytest.fixture(scope="session")
def served_model() -> Iterator[Model]:
    provider = ScriptedProvider(Reply(text="hello"))
    with provider.serve_in_thread() as url:
        yield Model(provider, url)


@pytest.fixture
def model(served_model: Model) -> Model:
    served_model.provider.received.clear()
    return served_model
