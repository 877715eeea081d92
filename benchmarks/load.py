"""The load: wrk, which repeats one request from a number of clients, and fails on any faulty response."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

CLIENT_KEY = "k-bench"

_SCRIPT = """\
wrk.method = "POST"
wrk.body = [==[{body}]==]
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
wrk.headers["User-Agent"] = "AsyncOpenAI/Python 3.0.0"

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\n{{"requests":%d,"bytes":%d,"seconds":%f,"p50":%f,"p99":%f,"status":%d,"socket":%d,"timeout":%d}}\\n',
    summary.requests, summary.bytes, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    e.status, e.connect + e.read + e.write, e.timeout))
end
"""


class LoadError(Exception):
    """wrk is missing or failed, or a response was not as expected."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one run. Times are in seconds."""

    requests: int
    """Requests with a complete response."""
    bytes: int
    """Bytes received, including headers and the responses that were incomplete when the time was up."""
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def body(*, stream: bool) -> str:
    """The body of a chat request that does not ask for usage, as most clients do not."""
    question = "How large is the README file in my current path?"
    content: dict[str, Any] = {"model": "gpt-5", "messages": [{"role": "user", "content": question}]}
    return json.dumps({**content, "stream": True} if stream else content, separators=(",", ":"))


def ask(url: str, *, stream: bool) -> bytes:
    """The body of one response. Raises `LoadError` if its status is not 200."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {CLIENT_KEY}"}
    request = urllib.request.Request(url, body(stream=stream).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        if response.status != 200:
            raise LoadError(f"{url} answered {response.status}")
        answer: bytes = response.read()
        return answer


def await_answer(url: str, *, seconds: float = 30) -> None:
    """Wait for a first response: a port may be open before the app behind it has started.

    Raises `OSError` after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            ask(url, stream=False)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def weigh(url: str, *, stream: bool) -> int:
    """The bytes of one complete response, including headers and chunk sizes."""
    place, content = urlsplit(url), body(stream=stream)
    head = f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\nConnection: close"
    head += f"\r\nAuthorization: Bearer {CLIENT_KEY}\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection((str(place.hostname), place.port or 80), timeout=30) as connection:
        connection.sendall((head + content).encode())
        return sum(len(part) for part in iter(lambda: connection.recv(65536), b""))


def require_wrk() -> None:
    """Raise `LoadError`, which says how to install wrk, if it is missing."""
    if shutil.which("wrk") is None:
        raise LoadError("wrk is not installed; on Debian and Ubuntu: apt-get install wrk, on Fedora: dnf install wrk")


def run(url: str, *, stream: bool, clients: int, seconds: int, core: int) -> Outcome:
    """Send requests for `seconds` from `core`.

    Raises `LoadError` if wrk failed, if a response was not 2xx, broke off or came too late, or if there was none.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT.format(body=body(stream=stream), key=CLIENT_KEY))
        script.flush()
        wrk = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "20s", "-s", script.name, url]
        done = subprocess.run(["taskset", "--cpu-list", str(core), *wrk], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadError(f"wrk failed on {url}: {done.stderr or done.stdout}")
    report = json.loads(done.stdout.strip().splitlines()[-1])
    if report["status"] or report["socket"] or report["timeout"] or not report["requests"]:
        raise LoadError(
            f"{url}, {clients} clients: of {report['requests']} requests {report['status']} were not answered 2xx, "
            f"{report['socket']} broke off and {report['timeout']} timed out"
        )
    return Outcome(report["requests"], report["bytes"], report["seconds"], report["p50"], report["p99"])
