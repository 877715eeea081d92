"""Runs exchanges against a gateway as a black box: plays client and upstream, compares, and reads the record."""

from __future__ import annotations

import argparse
import gzip
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.loopback import Request

from .exchange import DIRECTORY, Answer, Exchange, Format, load
from .replay import Replay, replay_in_thread

INTERCEPTION_ID = "x-aibridge-interception-id"
RECORD_WAIT = 3.0
"""Seconds within which a record must be completed."""
NOT_RELAYED = {"connection", "content-length", "date", "keep-alive", "server", "set-cookie", "transfer-encoding"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The address of a gateway, and the credentials that it accepts."""

    url: str
    """The URL with the prefix, without a slash at the end."""
    key: str
    """The client key."""
    admin_token: str | None = None
    """The token of the admin routes; with None, records are not checked."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """The path below `url` of each provider that is not at `/{provider}`."""
    provider_keys: Mapping[str, str] = field(default_factory=dict)
    """The credential that the upstream must receive, by provider; others are not checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int
    headers: httpx.Headers
    body: bytes
    """The body as received, with its content encoding."""
    broken: str | None = None


class Runner:
    """Runs exchanges one at a time, because the replay upstream cannot tell concurrent ones apart."""

    def __init__(self, gateway: Gateway, replay: Replay, client: httpx.Client) -> None:
        self._gateway = gateway
        self._replay = replay
        self._client = client

    def run(self, exchange: Exchange, cuts: Sequence[int] = ()) -> list[str]:
        """Return the differences from the exchange, with the upstream's body cut at these offsets."""
        self._replay.play(exchange.upstream, cuts)
        reply = self._send(exchange)
        return [
            *_compare_reply(exchange, reply),
            *self._compare_received(exchange, list(self._replay.received)),
            *(self._compare_record(exchange, reply) if self._gateway.admin_token else ()),
        ]

    def _send(self, exchange: Exchange) -> Reply:
        request = exchange.request
        path = self._gateway.paths.get(request.provider, f"/{request.provider}") + request.upstream_path
        key = self._gateway.key
        credential = {"x-api-key": key} if exchange.format == "messages" else {"authorization": f"Bearer {key}"}
        headers = {"accept-encoding": "identity", **credential, **{n.lower(): value for n, value in request.headers}}
        body, broken = b"", None
        with self._client.stream(
            request.method, self._gateway.url + path, headers=headers, content=request.body
        ) as response:
            try:
                for piece in response.iter_raw():
                    body += piece
            except httpx.HTTPError as error:
                broken = f"{type(error).__name__}: {error}"
        return Reply(status=response.status_code, headers=response.headers, body=body, broken=broken)

    def _compare_received(self, exchange: Exchange, received: list[Request]) -> list[str]:
        hangs_up = exchange.upstream is None
        if hangs_up and len(received) == 2 and received[0].body == received[1].body:
            # On an idle connection a hang-up may mean that it is closed: one more attempt is correct.
            received = received[:1]
        if len(received) != 1:
            return [f"the upstream got {len(received)} requests, want 1"]
        (got,) = received
        request, differences = exchange.request, []
        if (got.method, got.path) != (request.method, request.upstream_path):
            wanted = f"{request.method} {request.upstream_path}"
            differences.append(f"the upstream got {got.method} {got.path}, want {wanted}")
        if exchange.as_json:
            wanted_body = json.loads(exchange.upstream_request)
            differences += compare(wanted_body, json.loads(got.body), "the upstream's request", exact=True)
        else:
            differences += _compare_bytes(exchange.upstream_request, got.body, "the upstream's request")
        for name, value in got.headers:
            if self._gateway.key in value:
                differences.append(f"the upstream got the caller's key in {name}")
        if (key := self._gateway.provider_keys.get(request.provider)) is not None:
            name, value = ("x-api-key", key) if exchange.format == "messages" else ("authorization", f"Bearer {key}")
            if got.header(name) != value:
                differences.append(f"the upstream did not get the provider's credential in {name}")
        return differences

    def _compare_record(self, exchange: Exchange, reply: Reply) -> list[str]:
        interception_id = reply.headers.get(INTERCEPTION_ID)
        if not interception_id:
            return [f"no {INTERCEPTION_ID}"]
        record = self._record(interception_id, running=exchange.record.get("status") == "running")
        if record is None:
            return [f"interception {interception_id} has not ended after {RECORD_WAIT} s"]
        request = exchange.request
        differences = compare(
            {"id": interception_id, "provider": request.provider, "route": request.route, **exchange.record},
            record,
            "record",
        )
        if (record["error"] is not None) != (record["status"] == "failed"):
            differences.append(f"record.error is {record['error']!r} where record.status is {record['status']!r}")
        return differences

    def _record(self, interception_id: str, *, running: bool) -> dict[str, Any] | None:
        until = time.monotonic() + RECORD_WAIT
        while True:
            response = self._client.get(
                f"{self._gateway.url}/admin/interceptions/{interception_id}",
                headers={"authorization": f"Bearer {self._gateway.admin_token}"},
            )
            if response.status_code not in (200, 404):
                raise RuntimeError(f"GET {response.url} answers {response.status_code}: {response.text[:200]}")
            if response.status_code == 200:
                record: dict[str, Any] = response.json()
                if running or record["ended_at"]:
                    return record
            if time.monotonic() > until:
                return None
            time.sleep(0.01)


def compare(want: object, got: object, where: str, *, exact: bool = False) -> list[str]:
    """Return the differences between JSON values. Additional members are allowed unless `exact`; in an `extra`, a kind
    that is missing on either side counts as 0. Lists must have equal lengths.
    """
    if isinstance(want, dict) and isinstance(got, dict):
        if where.endswith(".extra"):
            want = {name: want.get(name, 0) for name in {*want, *got}}
            got = {name: got.get(name, 0) for name in want}
        surplus = sorted(set(got) - set(want)) if exact else []
        return [
            *(f"{where}.{name} is not wanted" for name in surplus),
            *(f"{where}.{name} is missing" for name in want if name not in got),
            *(
                difference
                for name in want
                if name in got
                for difference in compare(want[name], got[name], f"{where}.{name}", exact=exact)
            ),
        ]
    if isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        return [
            difference
            for index, (a, b) in enumerate(zip(want, got, strict=True))
            for difference in compare(a, b, f"{where}[{index}]", exact=exact)
        ]
    if type(want) is type(got) and want == got:
        return []
    return [f"{where} is {json.dumps(got, ensure_ascii=False)}, want {json.dumps(want, ensure_ascii=False)}"]


def _compare_reply(exchange: Exchange, reply: Reply) -> list[str]:
    want, differences = exchange.client, list[str]()
    body = reply.body
    if want.decoded and reply.headers.get("content-encoding") == "gzip":
        try:
            body = gzip.decompress(body)
        except (OSError, EOFError, zlib.error) as error:
            differences.append(f"the body is not the gzip data that it is said to be: {error}")
    if reply.status != want.status:
        differences.append(f"the status is {reply.status}, want {want.status}: {reply.body[:200]!r}")
    if reply.broken:
        differences.append(f"the answer breaks off ({reply.broken})")
    if want.error == "body":
        differences += is_error(exchange.format, body)
    elif want.error == "event":
        differences += _compare_bytes(want.body, body[: len(want.body)], "the body before the error")
        differences += is_error_event(exchange.format, body[len(want.body) :])
    else:
        differences += _compare_bytes(want.body, body, "the body")
    upstream = exchange.upstream.headers if exchange.upstream and want.error != "body" else ()
    not_relayed = NOT_RELAYED | {"content-encoding"} if want.decoded else NOT_RELAYED
    for name, value in (*upstream, *want.headers):
        if name.lower() not in not_relayed and reply.headers.get(name) != value:
            differences.append(f"header {name} is {reply.headers.get(name)!r}, want {value!r}")
    if "set-cookie" in reply.headers:
        differences.append("the client got the upstream's cookie")
    return differences


def _compare_bytes(want: bytes, got: bytes, what: str) -> list[str]:
    if want == got:
        return []
    at = next((n for n, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got)))
    start = max(at - 20, 0)
    seen, wanted = got[start : at + 60], want[start : at + 60]
    return [f"{what} ({len(got)} bytes, want {len(want)}) differs at byte {at}: {seen!r}, want {wanted!r}"]


def is_error(format_: Format, body: bytes) -> list[str]:
    """Return why a body is no error in the provider's shape; empty if it is one."""
    try:
        value = json.loads(body)
        error = value["error"]
        fine = bool(error["type"] and error["message"])
        if format_ == "messages":
            fine = fine and value["type"] == "error"
    except (ValueError, KeyError, TypeError):
        fine = False
    return [] if fine else [f"the body is no error in the provider's shape: {body[:200]!r}"]


def is_error_event(format_: Format, tail: bytes) -> list[str]:
    """Return why the end of a stream is no error event in the provider's shape, which for chat may include `[DONE]`.

    For Responses an `error` event, a `response.failed` or both in this order are accepted, as each client reads one.
    """
    if format_ == "chat_completions":
        tail = tail.removesuffix(b"data: [DONE]\n\n")
    events = [event + b"\n\n" for event in tail.split(b"\n\n")[:-1]]
    names = {"chat_completions": ["", "none"], "messages": ["error", "none"]}.get(format_, ["error", "response.failed"])
    if format_ == "responses" and tail.startswith(b"event: response.failed\n"):
        names = names[1:]
    fine = b"".join(events) == tail and 0 < len(events) <= len(names)
    for name, event in zip(names, events, strict=False):
        fields = [line.partition(b":") for line in event.removesuffix(b"\n\n").split(b"\n")]
        given = next((value.strip().decode() for key, _, value in fields if key == b"event"), "")
        data = b"\n".join(value.removeprefix(b" ") for key, _, value in fields if key == b"data")
        is_one = _is_responses_error(name, data) if format_ == "responses" else not is_error(format_, data)
        fine = fine and given == name and is_one
    return [] if fine else [f"the stream does not end with an error event in the provider's shape: {tail[:300]!r}"]


def _is_responses_error(name: str, data: bytes) -> bool:
    try:
        value = json.loads(data)
        error = value if name == "error" else value["response"]["error"]
        return bool(value["type"] == name and error["message"])
    except (ValueError, KeyError, TypeError):
        return False


def interesting_cuts(answer: Answer) -> list[int]:
    """Return offsets where a cut is likely to do harm: at line ends, field names and characters of several bytes."""
    body = answer.body
    return [at for at in range(1, len(body)) if body[at - 1] in b"\r\n:\\" or body[at] in b"\r\n:" or body[at] >= 0x80]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 if no exchange differs, else 1."""
    options = _options().parse_args(arguments)
    gateway = Gateway(
        url=options.url.rstrip("/"),
        key=options.key,
        admin_token=None if options.no_records else options.admin_token,
        paths={name: path.rstrip("/") for name, path in options.path},
        provider_keys=dict(options.provider_key),
    )
    exchanges = [exchange for exchange in load(DIRECTORY) if options.k in exchange.name]
    failed = 0
    with (
        replay_in_thread(host=options.replay_host, port=options.replay_port) as replay,
        httpx.Client(timeout=options.timeout, trust_env=False) as client,
    ):
        runner = Runner(gateway, replay, client)
        for exchange in exchanges:
            try:
                differences = runner.run(exchange, range(0, 1 << 20, options.cut) if options.cut else ())
            except (httpx.HTTPError, RuntimeError) as error:
                differences = [f"{type(error).__name__}: {error}"]
            failed += bool(differences)
            print("FAIL" if differences else "ok  ", exchange.name)
            for difference in differences:
                print(f"     {difference}")
    print(f"{len(exchanges) - failed} of {len(exchanges)} exchanges are as wanted")
    return 1 if failed else 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=__doc__)
    parser.add_argument("--url", required=True, help="the gateway, with its prefix")
    parser.add_argument("--key", required=True, help="the key that the caller sends")
    parser.add_argument("--admin-token", help="bearer token of the admin routes")
    parser.add_argument("--no-records", action="store_true", help="do not look at what was recorded")
    parser.add_argument("--replay-host", default="127.0.0.1", help="where the replay upstream listens")
    parser.add_argument("--replay-port", type=int, default=9900, help="and its port")
    for name, metavar, help_ in (
        ("--path", "PROVIDER=PATH", "where a provider is below the URL, if not at /PROVIDER"),
        ("--provider-key", "PROVIDER=KEY", "the credential that the upstream must see"),
    ):
        parser.add_argument(name, type=_pair, action="append", default=[], metavar=metavar, help=help_)
    parser.add_argument("--cut", type=int, default=0, metavar="N", help="send the upstream's bodies N bytes at a time")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds that the gateway may be silent")
    parser.add_argument("-k", default="", metavar="TEXT", help="only exchanges whose name has this in it")
    return parser


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
