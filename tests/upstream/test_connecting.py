"""The way to an upstream: TLS with custom authorities and certificates, proxies, names and addresses."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from fastapi_aibridge import GatewayError, OpenAIProvider, ProviderSettings
from fastapi_aibridge.upstream import addresses
from fastapi_aibridge.upstream.addresses import Address, Resolver, connected_socket
from fastapi_aibridge.upstream.client import UpstreamClient
from fastapi_aibridge.upstream.proxy import proxy_for
from tests.loopback import Loopback, read_request

from .clock import MovableClock

pytestmark = pytest.mark.anyio


class Server(Loopback):
    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self.peers: list[Any] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            self.peers.append(writer.get_extra_info("peercert"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


class ProxyServer(Loopback):
    """A proxy that opens tunnels for the right credentials."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        writer.write(self.answer)
        if b" 200 " not in self.answer:
            await reader.read()
            return
        port = int(head.split(b" ")[1].rpartition(b":")[2])
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(_pump(reader, up_writer), _pump(up_reader, writer))
        finally:
            up_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


def provider(url: str, **settings: Any) -> OpenAIProvider:
    return OpenAIProvider("openai", ProviderSettings(base_url=url, api_key="k", connect_timeout=5, **settings))


async def ask(one: OpenAIProvider) -> bytes:
    async with UpstreamClient() as client:
        response = await client.send(one.origin, "POST", b"/", [], b"{}", one.limits)
        return await response.read_some()


async def problem(one: OpenAIProvider) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await ask(one)
    return caught.value


@asynccontextmanager
async def secure(authority: trustme.CA, name: str = "127.0.0.1", *, asks: bool = False) -> AsyncIterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    async with Server(context) as server:
        yield server


async def test_an_authority_of_ones_own(tmp_path: Path) -> None:
    """`CA_FILE` replaces the system's authorities; a certificate for another name is refused nonetheless."""
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    async with secure(authority) as server:
        url = server.url.replace("http:", "https:")
        assert await ask(provider(url, ca_file=file)) == b"{}"
        error = await problem(provider(url))
        assert "TLS" in error.message
        assert url in error.cause
        assert "certificate" in error.cause
    async with secure(authority, "other.example") as server:
        error = await problem(provider(server.url.replace("http:", "https:"), ca_file=file))
        assert "TLS" in error.message
        assert server.peers == []


async def test_a_certificate_of_ones_own(tmp_path: Path) -> None:
    """`CLIENT_CERT` is presented to a server that asks for a certificate."""
    authority = trustme.CA()
    file, own = tmp_path / "ca.pem", tmp_path / "own.pem"
    authority.cert_pem.write_to_path(str(file))
    authority.issue_cert("gateway.example").private_key_and_cert_chain_pem.write_to_path(str(own))
    async with secure(authority, asks=True) as server:
        url = server.url.replace("http:", "https:")
        assert await ask(provider(url, ca_file=file, client_cert=own)) == b"{}"
        assert ("DNS", "gateway.example") in server.peers[0]["subjectAltName"]
        assert (await problem(provider(url, ca_file=file))).status == 502


@pytest.mark.parametrize("https", [True, False])
async def test_a_proxy(tmp_path: Path, *, https: bool) -> None:
    """HTTP and HTTPS go through a tunnel, opened with the credentials in the proxy's URL; TLS ends at the upstream."""
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    async with secure(authority) if https else Server() as server, ProxyServer() as proxy:
        url = server.url.replace("http:", "https:") if https else server.url
        through = f"http://us%20er:p%3Ass@127.0.0.1:{proxy.port}"
        assert await ask(provider(url, proxy=through, ca_file=file)) == b"{}"
        [head] = proxy.asked
        assert head.startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % server.port)
        assert b"Proxy-Authorization: Basic " + base64.b64encode(b"us er:p:ss") in head


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "status 407"),
        (b"HTTP/1.1 302 Go\r\nLocation: /\r\n\r\n", "status 302"),
        (b"SSH-2.0-x\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "more than its answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000, "does not speak HTTP|more than its answer"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel(answer: bytes, why: str) -> None:
    """A proxy that opens no tunnel gives an error with the proxy's reply, and nothing reaches the upstream."""
    async with Server() as server, ProxyServer(answer) as proxy:
        error = await problem(provider(server.url, proxy=f"http://u:secret@127.0.0.1:{proxy.port}"))
        assert error.status == 502
        assert any(one in error.cause for one in why.split("|"))
        assert f"127.0.0.1:{proxy.port}" in error.cause
        assert "secret" not in error.cause
        assert server.peers == []


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxies are used only with the setting `env`, and not for hosts in `NO_PROXY`."""
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "internal.example")
    assert proxy_for(None, "https://api.example/v1") is None
    found = proxy_for("env", "https://api.example/v1")
    assert found is not None
    assert (found.host, found.port) == ("proxy.example", 3128)
    assert proxy_for("env", "https://x.internal.example/v1") is None
    assert proxy_for("env", "http://api.example/v1") is None
    assert provider("https://api.example").origin.proxy is None


class Names:
    """A DNS with the given addresses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
        self.found = list(found)
        self.asked = 0
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo, raising=False)

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked += 1
        await asyncio.sleep(0)
        if not self.found:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        kinds = [socket.AF_INET6 if ":" in one else socket.AF_INET for one in self.found]
        return [(kind, 1, 6, "", (one, port)) for kind, one in zip(kinds, self.found, strict=True)]


async def test_names_that_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is resolved once for concurrent requests, again after a time, and again after a failed connection."""
    clock, names = MovableClock(), Names(monkeypatch, "192.0.2.1")
    resolver = Resolver(clock=clock)
    found = await asyncio.gather(*(resolver.addresses("a.example", 1) for _ in range(5)))
    assert {one[0].sockaddr[0] for one in found} == {"192.0.2.1"}
    names.found = ["192.0.2.2"]
    assert (await resolver.addresses("a.example", 1))[0].sockaddr[0] == "192.0.2.1"
    assert names.asked == 1
    clock.now += addresses.KEPT_FOR + 1
    assert (await resolver.addresses("a.example", 1))[0].sockaddr[0] == "192.0.2.2"
    names.found = ["192.0.2.3"]
    resolver.forget("a.example", 1)
    assert (await resolver.addresses("a.example", 1))[0].sockaddr[0] == "192.0.2.3"
    names.found = []
    with pytest.raises(socket.gaierror):
        await resolver.addresses("b.example", 1)
    for number in range(1000):
        names.found = ["192.0.2.4"]
        await resolver.addresses(f"{number}.example", 1)
    assert len(resolver._known) <= addresses.MAX_NAMES
    assert (await resolver.addresses("::1", 1)) == [Address(socket.AF_INET6, ("::1", 1, 0, 0))]


async def test_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, "2001:db8::1", "2001:db8::2", "192.0.2.1")
    found = await Resolver().addresses("a.example", 1)
    assert [one.sockaddr[0] for one in found] == ["2001:db8::1", "192.0.2.1", "2001:db8::2"]


async def test_an_address_that_does_not_answer_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next address is tried after a short delay if one does not respond, and at once if one refuses."""
    tried: list[str] = []
    connect = addresses._connect

    async def fake(address: Address) -> socket.socket:
        tried.append(address.sockaddr[0])
        if address.sockaddr[0] == "192.0.2.1":
            await asyncio.Event().wait()
        if address.sockaddr[0] == "192.0.2.2":
            raise ConnectionRefusedError
        return await connect(address)

    monkeypatch.setattr(addresses, "_connect", fake)
    monkeypatch.setattr(addresses, "ATTEMPT_DELAY", 0.05)
    async with Server() as server:
        good = Address(socket.AF_INET, ("127.0.0.1", server.port))
        silent, closed = (Address(socket.AF_INET, (f"192.0.2.{number}", 1)) for number in (1, 2))
        for order in ([silent, good], [closed, good], [silent, closed, good]):
            tried.clear()
            (await connected_socket(order)).close()
            assert tried == [one.sockaddr[0] for one in order]
        with pytest.raises(ConnectionRefusedError):
            await connected_socket([closed, closed])
        await asyncio.sleep(0)
        assert [task for task in asyncio.all_tasks() if "fake" in repr(task)] == []


async def test_causes_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A failure to connect is logged once, and so is the recovery."""
    async with Server() as server:
        port = server.port
    one = provider(f"http://127.0.0.1:{port}")
    with caplog.at_level(logging.INFO, "fastapi_aibridge.upstream"):
        async with UpstreamClient() as client:
            for _ in range(3):
                with pytest.raises(GatewayError):
                    await client.send(one.origin, "GET", b"/", [], b"", one.limits)
            again = Server()
            again.port = port
            async with again:
                await client.send(one.origin, "GET", b"/", [], b"", one.limits)
    assert [record.getMessage() for record in caplog.records] == [
        f"an upstream cannot be reached: http://127.0.0.1:{port}: connection refused",
        f"upstream http://127.0.0.1:{port} can be reached again",
    ]
