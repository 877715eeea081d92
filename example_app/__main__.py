"""Serves the app: `python -m example_app [--host HOST] [--port PORT]`."""

from __future__ import annotations

import argparse
import math
import socket
import sys
from contextlib import suppress

import uvicorn

from example_app import welcome
from example_app.main import app
from example_app.settings import SettingsSource
from fastapi_aibridge import Settings
from fastapi_aibridge.errors import SettingsError


class Server(uvicorn.Server):
    """A server that prints the welcome text once its port is open."""

    def __init__(self, config: uvicorn.Config, settings: Settings, *, offline: bool) -> None:
        super().__init__(config)
        self._settings = settings
        self._offline = offline

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            base = f"http://{self.config.host}:{port}"
            print(welcome.text(base, self._settings, offline=self._offline), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m example_app", description="Serve the example app.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    options = parser.parse_args()
    source: SettingsSource = app.state.settings
    try:
        settings = source()
    except SettingsError as error:
        print(f"The app cannot start: {error}", file=sys.stderr)
        return 2
    # The gateway gives running requests this long when it stops. A server that waited for them without a limit would
    # never end the lifespan, which is what stops the gateway.
    grace = max(1, math.ceil(settings.shutdown_grace))
    config = uvicorn.Config(app, options.host, options.port, timeout_graceful_shutdown=grace)
    with suppress(KeyboardInterrupt):
        Server(config, settings, offline=source.offline.running).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
