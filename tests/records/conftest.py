from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.recorder.conftest import url

from .process import Spawner

__all__ = ["spawner", "url"]


@pytest.fixture(scope="session")
def spawner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawner]:
    with Spawner(tmp_path_factory.mktemp("gateways") / "log") as spawner:
        yield spawner
