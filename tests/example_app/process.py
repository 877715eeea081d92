"""The example app as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]


class App:
    """`python -m example_app` on a free port; it is started once its start-up text is complete."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "example_app", "--port", "0"],
            cwd=directory,
            env=os.environ | {"PYTHONPATH": str(ROOT), "AIBRIDGE_SHUTDOWN_GRACE": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.welcome = ""
        for line in self.stdout:
            self.welcome += line
            if "/admin/interceptions" in line or "Admin routes are off" in line:
                break
        found = re.search(r"http://127\.0\.0\.1:\d+", self.welcome)
        self.base = found.group() if found else ""

    @property
    def stdout(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def stop(self) -> str:
        """End the app as a service manager does, and return its standard error."""
        self.process.terminate()
        _, stderr = self.process.communicate(timeout=15)
        return str(stderr)


@contextmanager
def running(directory: Path, **environment: str) -> Iterator[App]:
    app = App(directory, environment)
    try:
        yield app
    finally:
        if app.process.poll() is None:
            app.stop()
