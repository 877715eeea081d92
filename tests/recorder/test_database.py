"""Opens the database of the records."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastapi_aibridge import ConfigurationError
from fastapi_aibridge.recorder.sql import SQLRecorder

pytestmark = pytest.mark.anyio


async def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    """The start fails with the variable's name and the reason, even if the path is a folder."""
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "records.db", tmp_path / "folder"):
        with pytest.raises(ConfigurationError, match=r"^AIBRIDGE_RECORDER__URL: .* cannot be written: \w"):
            async with SQLRecorder(f"sqlite+aiosqlite:///{path}"):
                pass


async def test_a_new_file_is_private(tmp_path: Path) -> None:
    """A new file, which holds prompts, is readable by its owner alone."""
    path = tmp_path / "records.db"
    async with SQLRecorder(f"sqlite+aiosqlite:///{path}"):
        assert path.stat().st_mode & 0o077 == 0
