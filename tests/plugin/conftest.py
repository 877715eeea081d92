from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastapi_aibridge.testing import Reply, ScriptedProvider

from .apps import Model


@pytest.fixture(scope="session")
def served_model() -> Iterator[Model]:
    provider = ScriptedProvider(Reply(text="hello"))
    with provider.serve_in_thread() as url:
        yield Model(provider, url)


@pytest.fixture
def model(served_model: Model) -> Model:
    served_model.provider.received.clear()
    return served_model
