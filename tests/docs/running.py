"""Follows a page from top to bottom: writes its files, serves its app, runs its code and commands.

Placeholders are replaced: a free port for 8000, the offline provider for 9000, its key for the reader's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from example_app.offline import KEY
from fastapi_aibridge import AIBridge, Settings
from tests.e2e.gateway.server import served_in_thread

from .pages import Block, blocks

GATEWAY, PROVIDER = "http://127.0.0.1:8000", "http://127.0.0.1:9000"


@dataclass
class Reader:
    """Follows one page in an empty current directory. `close` stops everything that it started."""

    directory: Path
    offline: str
    monkeypatch: pytest.MonkeyPatch
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})
    """Names that the page's untitled Python blocks define."""
    output: str = ""
    """Output of its commands."""
    tested: list[str] = field(default_factory=list)
    """Test files of the page that passed."""
    variables: dict[str, str] = field(default_factory=dict)
    """Variables that its shell blocks assign."""
    _served: ExitStack = field(default_factory=ExitStack)
    _gateway: str = ""

    def follow(self, page: Path) -> None:
        for block in blocks(page):
            self._do(block)

    def close(self) -> None:
        self._served.close()
        self._gateway = ""

    def _do(self, block: Block) -> None:
        if block.title:
            self._write(block)
        elif block.language == "python":
            exec(compile(self._put_in(block.code), block.place, "exec"), self.names)
        elif block.language == "sh":
            for command in re.sub(r"\\\n", "", block.code).splitlines():
                self._command(self._put_in(command), block)
        elif block.language == "toml":
            self._validate(block)

    def _write(self, block: Block) -> None:
        name, continued, _ = block.title.partition(", continued")
        file = self.directory / name
        before = file.read_text() + "\n\n" if continued else ""
        file.write_text(before + self._put_in(block.code))
        if name == "app.py":
            self.close()
            self.names |= vars(self._import())
        elif name.startswith("test_"):
            self.close()
            # In this process, because another one would import everything again.
            quiet = [
                "-q",
                "-p",
                "no:cacheprovider",
                "--import-mode",
                "importlib",
                "--rootdir",
                str(self.directory),
                "-c",
                os.devnull,
            ]
            assert pytest.main([*quiet, str(file)]) == pytest.ExitCode.OK, block.place
            self.tested.append(name)

    def _command(self, command: str, block: Block) -> None:
        """Run a command that needs no network beyond the gateway:

        `export`, an assignment or curl. Others are skipped.
        """
        if command.startswith("export "):
            self.close()
            script = f"{command.partition(' #')[0]}; env -0"
            for pair in self._run(["bash", "-c", script], block).split("\0"):
                name, _, value = pair.partition("=")
                if name.startswith("AIBRIDGE_") and os.environ.get(name) != value:
                    self.monkeypatch.setenv(name, value)
        elif assigned := re.fullmatch(r"(\w+)=(\S+)", command):
            self.variables[assigned[1]] = assigned[2]
        elif command.startswith("curl "):
            self.output += self._run(["bash", "-c", command.replace("curl ", "curl -sS --fail-with-body ", 1)], block)

    def _validate(self, block: Block) -> None:
        file = self.directory / "block.toml"
        file.write_text(self._put_in(block.code))
        Settings.load(config_file=file)

    def _run(self, command: list[str], block: Block) -> str:
        done = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, timeout=30)
        assert not done.returncode, f"{block.place}: {done.stdout}{done.stderr}"
        return done.stdout

    def _put_in(self, text: str) -> str:
        for name, value in self.variables.items():
            text = text.replace(f"${name}", value)
        if GATEWAY in text:
            text = text.replace(GATEWAY, self._gateway or self._serve())
        return re.sub(r"sk-(ant-)?your-key", KEY, text.replace(PROVIDER, self.offline))

    def _import(self) -> Any:
        """Import the page's current `app.py`."""
        sys.modules.pop("app", None)
        self.monkeypatch.syspath_prepend(self.directory)
        return import_module("app")

    def _serve(self) -> str:
        if (self.directory / "app.py").exists():
            app = self._import().app
        else:
            app = FastAPI()
            app.include_router(AIBridge().router, prefix="/ai")
        self._gateway = self._served.enter_context(served_in_thread(app)).url
        return self._gateway
