"""`@modelcontextprotocol/server-everything` from npm: a server from outside this project."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.loopback import free_port

PACKAGE = "@modelcontextprotocol/server-everything@2026.8.31"
CACHE = Path(os.environ.get("MCP_EVERYTHING_DIR") or Path.home() / ".cache" / "fastapi-aibridge" / "mcp-everything")


def install() -> Path:
    """Install the server from npm if it is missing, and return the path of its program."""
    script = CACHE / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    if not script.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(CACHE), PACKAGE]
        subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)
    return script


@contextmanager
def everything() -> Iterator[str]:
    """Run the server while the block runs, and yield its URL."""
    port = free_port()
    process = subprocess.Popen(
        ["node", str(install()), "streamableHttp"],
        env=os.environ | {"PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("the server did not start") from None
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()
