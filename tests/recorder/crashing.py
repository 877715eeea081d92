"""Records until it is killed, and prints the id of each start that is durable."""

from __future__ import annotations

import asyncio
import sys

from fastapi_aibridge.recorder.sql import SQLRecorder

from .builders import ending, full_facts, interception


async def main(url: str) -> None:
    async with SQLRecorder(url) as recorder:

        async def run() -> None:
            while True:
                begun = interception()
                await recorder.start(begun)
                sys.stdout.write(f"{begun.id}\n")
                sys.stdout.flush()
                await recorder.observe(begun.id, full_facts())
                await asyncio.sleep(0.001)
                await recorder.end(begun.id, ending(), full_facts())

        await asyncio.gather(*(run() for _ in range(50)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
