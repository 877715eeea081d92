"""Expensive requests, several kinds of them, sent to a gateway until the process is killed.

    python -m tests.e2e.bounds.attack PORT

It is a process of its own so that the cost of sending does not count as the gateway's slowness.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress

import zstandard

MIB = 1024 * 1024
CHAT, MESSAGES, RESPONSES = "/ai/openai/v1/chat/completions", "/ai/anthropic/v1/messages", "/ai/openai/v1/responses"
WORKERS = 12


def unfolding(piece: bytes, member: bytes = b"messages") -> bytes:
    return b'{"model":"m","stream":true,"' + member + b'":[' + piece * (31 * MIB // len(piece)) + b"0]}"


def said(text: str) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": text}]}).encode()


KINDS: dict[str, Callable[[], tuple[str, bytes, dict[str, str]]]] = {
    "zeros, gzip": lambda: (CHAT, gzip.compress(unfolding(b"0,"), 9), {"content-encoding": "gzip"}),
    "objects, gzip": lambda: (CHAT, gzip.compress(unfolding(b"{},"), 9), {"content-encoding": "gzip"}),
    "strings, deflate": lambda: (
        RESPONSES,
        zlib.compress(unfolding(b'"",', b"input")),
        {"content-encoding": "deflate"},
    ),
    "spaces, zstd": lambda: (
        MESSAGES,
        zstandard.ZstdCompressor().compress(unfolding(b" ")),
        {"content-encoding": "zstd"},
    ),
    "a bomb": lambda: (CHAT, gzip.compress(bytes(64 * MIB), 9), {"content-encoding": "gzip"}),
    "letters, gzip": lambda: (CHAT, gzip.compress(said("a" * 30 * MIB)), {"content-encoding": "gzip"}),
    "escapes, gzip": lambda: (CHAT, gzip.compress(said("\n" * 15 * MIB)), {"content-encoding": "gzip"}),
    "a long session": lambda: (
        MESSAGES,
        json.dumps({"model": "m", "messages": [], "metadata": {"user_id": "_session_" * (4 * MIB // 9)}}).encode(),
        {"user-agent": "claude-cli/2"},
    ),
    "a long model": lambda: (CHAT, json.dumps({"model": "m" * 10_000, "messages": []}).encode(), {}),
    "deep": lambda: (CHAT, b'{"model":"m","messages":' + b"[" * MIB + b"]" * MIB + b"}", {}),
    "members": lambda: (CHAT, b'{"model":"m",' + b",".join(b'"%d":1' % one for one in range(400_000)) + b"}", {}),
    "tags": lambda: (CHAT, said("<system-reminder>" * 60_000), {}),
    "closed tags": lambda: (CHAT, said("<feedback></feedback>" * 50_000), {}),
    "parts": lambda: (
        CHAT,
        json.dumps(
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "."}] * 15_000}]}
        ).encode(),
        {},
    ),
    "no JSON": lambda: (CHAT, b"\xff" * 2 * MIB, {}),
    "headers": lambda: (CHAT, said("x"), {f"x-stainless-{random.random()}": "x" * 500 for _ in range(60)}),
    "a small one": lambda: (CHAT, said("x"), {}),
}


def written(path: str, body: bytes, headers: dict[str, str], length: int | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: gateway", "authorization: Bearer key-of-mallory", "connection: close"]
    lines += [f"content-length: {len(body) if length is None else length}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def send(port: int, request: bytes, patience: float) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(patience):
            await writer.drain()
            while await reader.read(64 * 1024):
                pass
    finally:
        writer.transport.abort()


async def attack(port: int) -> None:
    requests = [written(*make()) for make in KINDS.values()]
    slow = written(CHAT, b"{", {}, 30 * MIB)
    requests += [slow, written(CHAT, b"", {}, 10)]

    print("ready", flush=True)

    async def worker(number: int) -> None:
        chance = random.Random(number)
        while True:
            request = chance.choice(requests)
            with suppress(OSError, TimeoutError):
                await send(port, request, 2 if request is slow else 30)

    await asyncio.gather(*(worker(number) for number in range(WORKERS)))


if __name__ == "__main__":
    asyncio.run(attack(int(sys.argv[1])))
