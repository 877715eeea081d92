"""Instructions of one request, counted by valgrind's callgrind: the figures do not depend on the machine's load.

`python -m benchmarks.instructions` needs valgrind (`apt-get install valgrind`) and some minutes. Instructions of the
kernel are not counted: a write to a socket costs no more than any function call.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import load
from .machine import MachineError, description
from .server import Server
from .stage import CLIENT, GATEWAY, PRINCIPAL, RELAY
from .table import Table
from .upstream import PACED

COLUMNS = ("server", "blocking, thousands", "streamed, 20 events at once", "an event of a slow stream")
_SERVERS = {
    RELAY: ("benchmarks.relay:build", "", PACED, {}),
    CLIENT: ("benchmarks.client_relay:build", "", PACED, {}),
    GATEWAY: ("benchmarks.gateway:build", "/ai/openai", "/ai/paced", {}),
    PRINCIPAL: ("benchmarks.gateway:build", "/ai/openai", "/ai/paced", {"BENCH_PRINCIPAL": "1"}),
}
_ROUTE = "/v1/chat/completions"
_WARM_UP = 50
_REQUESTS = 200
_STREAMS = 8
_EVENTS = 50
"""Text events of a slow stream."""
_START_SECONDS = 300.0


def measure() -> Table:
    """Measure one client on one connection. Raises `MachineError` without valgrind."""
    if shutil.which("valgrind") is None:
        raise MachineError("valgrind is missing: apt-get install valgrind")
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory(prefix="aibridge-bench-") as name:
        directory = Path(name)
        log = directory / "upstream.log"
        with Server("upstream", "benchmarks.upstream", core="0-1", log=log) as upstream:
            for server, (factory, prefix, paced, env) in _SERVERS.items():
                place = directory / str(len(rows))
                place.mkdir()
                with _counted(factory, place, {"BENCH_UPSTREAM": upstream.url, **env}) as counted:
                    figures = [
                        counted.per_request(prefix + _ROUTE, _REQUESTS, stream=False),
                        counted.per_request(prefix + _ROUTE, _REQUESTS, stream=True),
                        counted.per_request(paced + _ROUTE, _STREAMS, stream=True) / _EVENTS,
                    ]
                rows.append((server, *(f"{figure / 1000:,.0f}" for figure in figures)))
    return Table("instructions", COLUMNS, rows, f"{description()}; one client, in thousands.")


class _Counted:
    def __init__(self, process: subprocess.Popen[bytes], port: int, directory: Path) -> None:
        self._process = process
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._directory = directory

    def per_request(self, path: str, count: int, *, stream: bool) -> float:
        self._ask(path, min(count, _WARM_UP), stream=stream)
        before = self._total()
        self._ask(path, count, stream=stream)
        return (self._total() - before) / count

    def _ask(self, path: str, count: int, *, stream: bool) -> None:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {load.CLIENT_KEY}"}
        for _ in range(count):
            self._connection.request("POST", path, load.body(stream=stream), headers)
            response = self._connection.getresponse()
            if response.status != 200 or not response.read():
                raise load.LoadError(f"{path} answered {response.status}")

    def _total(self) -> int:
        """Instructions since the start of the process."""
        time.sleep(0.5)  # lets the server finish its work after the response
        subprocess.run(["callgrind_control", "--dump", str(self._process.pid)], check=True, capture_output=True)
        dumps = (file.read_text(errors="replace") for file in self._directory.glob("callgrind.out*"))
        return sum(int(found[1]) for dump in dumps if (found := re.search(r"^totals: (\d+)", dump, re.MULTILINE)))


@contextmanager
def _counted(factory: str, directory: Path, env: dict[str, str]) -> Iterator[_Counted]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    out = f"--callgrind-out-file={directory / 'callgrind.out'}"
    server = [sys.executable, "-m", "uvicorn", "--factory", factory, "--port", str(port), "--no-access-log"]
    command = ["valgrind", "--tool=callgrind", out, *server, "--loop", "uvloop", "--http", "httptools"]
    with (directory / "log").open("wb") as log:
        environment = {**os.environ, **env, "PYTHONHASHSEED": "0"}
        process = subprocess.Popen([*command, "--log-level", "warning"], env=environment, stdout=log, stderr=log)
    try:
        _await_port(process, port)
        yield _Counted(process, port, directory)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _await_port(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise MachineError("the server did not start under valgrind") from None
            time.sleep(0.2)
        else:
            return


if __name__ == "__main__":
    table = measure()
    print(table.markdown())
    if "--write" in sys.argv[1:]:
        table.write(Path("docs/performance.md"))
