"""Invalid settings of the multiprocess mode, each in a process of its own: prometheus-client is imported once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START = "from fastapi_aibridge import AIBridge; AIBridge()"


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    values = {"PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", code], env=os.environ | values, capture_output=True, text=True)


def test_an_app_that_imported_the_library_before_is_told(tmp_path: Path) -> None:
    done = run(f"import prometheus_client; {START}", AIBRIDGE_METRICS__MULTIPROCESS="true", TMPDIR=str(tmp_path))
    assert "set PROMETHEUS_MULTIPROC_DIR in the environment of the server instead" in done.stderr
    assert done.returncode == 1


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(START, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "file" / "below"))
    assert "PROMETHEUS_MULTIPROC_DIR: " in done.stderr


@pytest.mark.parametrize(
    ("kind", "blamed"), [("link", "AIBRIDGE_METRICS__MULTIPROCESS"), ("file", "PROMETHEUS_MULTIPROC_DIR")]
)
def test_a_name_in_the_temporary_directory_that_another_took_is_refused(tmp_path: Path, kind: str, blamed: str) -> None:
    """A file or link at the directory's name is refused: its owner could read the metrics or redirect files."""
    taken = f"Path({str(tmp_path)!r}, f'aibridge-metrics-{{os.getuid()}}-{{os.getpid()}}')"
    make = f"{taken}.symlink_to('/')" if kind == "link" else f"{taken}.touch()"
    code = f"import os; from pathlib import Path; {make}; {START}"
    done = run(code, AIBRIDGE_METRICS__MULTIPROCESS="true", TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert f"{blamed}: " in done.stderr
    assert not list(Path("/").glob("*.db"))


def test_a_file_is_read_too_late_for_it(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[metrics]\nmultiprocess = true\n")
    code = (
        "from fastapi import FastAPI; from fastapi.testclient import TestClient; from fastapi_aibridge import AIBridge;"
        "app = FastAPI(); app.include_router(AIBridge().router); TestClient(app).__enter__()"
    )
    done = run(code, AIBRIDGE_CONFIG_FILE=str(tmp_path / "config.toml"), AIBRIDGE_RECORDER__ENABLED="false")
    assert "AIBRIDGE_METRICS__MULTIPROCESS must be in the environment" in done.stderr
