from __future__ import annotations

from collections.abc import Iterator

import pytest

from .records.process import Spawner


@pytest.fixture(scope="session")
def spawner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawner]:
    with Spawner(tmp_path_factory.mktemp("gateways") / "log") as spawner:
        yield spawner
