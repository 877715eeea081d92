"""A provider that gives every request the same short response. It runs as a process of its own and prints its port.

python -m tests.e2e.bounds.quiet_upstream
"""

from __future__ import annotations

import asyncio

ANSWER = b'{"id":"c1","object":"chat.completion","choices":[]}'


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = next((line for line in head.split(b"\r\n") if line.startswith(b"content-length:")), b":0")
            left = int(length.partition(b":")[2])
            while left:
                piece = await reader.read(min(left, 1024 * 1024))
                if not piece:
                    return
                left -= len(piece)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
            writer.write(b"content-length: %d\r\n\r\n" % len(ANSWER) + ANSWER)
    except (OSError, EOFError):
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=4 * 1024 * 1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
