"""The moment at which modules are loaded: the engine at the lifespan's start, not at the import or during a request."""

from __future__ import annotations

import json
import subprocess
import sys

_SCRIPT = """
import json, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Upstream(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass

upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
threading.Thread(target=upstream.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{upstream.server_port}"

from fastapi import FastAPI
from fastapi.testclient import TestClient
from fastapi_aibridge import AIBridge, Principal, RequestBridge, Settings, get_bridge

def ours():
    return {name for name in sys.modules if name.startswith("fastapi_aibridge.")}

app = FastAPI()
app.include_router(AIBridge(Settings(
    providers={name: {"base_url": url, "api_key": "key"} for name in ("openai", "anthropic")},
    client_keys={"alice": "alices-key"},
    admin_token="admins-token",
    recorder={"url": f"sqlite+aiosqlite:///{sys.argv[1]}"},
)).router)
put_together = ours()
caller, admin = ({"authorization": f"Bearer {token}"} for token in ("alices-key", "admins-token"))
with TestClient(app) as client:
    started = ours()
    statuses = []
    for path in ("openai/v1/chat/completions", "openai/v1/responses", "openai/v1/embeddings", "anthropic/v1/messages"):
        for streaming in (False, True):
            body = {"model": "m", "stream": streaming, "input": "hi", "max_tokens": 9,
                    "messages": [{"role": "user", "content": "hi"}]}
            statuses.append(client.post(f"/{path}", headers=caller, json=body).status_code)
    statuses.append(client.post("/openai/v1/conversations", headers=caller, json={}).status_code)
    for path in ("interceptions", "interceptions/export", "interceptions/export?format=focus", "usage", "metrics",
                 "pool", "providers", "workers", "audit", "budgets"):
        statuses.append(client.get(f"/admin/{path}", headers=admin).status_code)
    statuses.append(client.get("/me/usage", headers=caller).status_code)
    statuses.append(client.post("/openai/v1/responses", json={}).status_code)
    served = ours()
upstream.shutdown()
upstream.server_close()
print(json.dumps([sorted(put_together), sorted(started), sorted(served), statuses]))
"""


def test_the_start_loads_what_requests_need_and_not_before(tmp_path: object) -> None:
    """The start loads every module that requests need, and the import of the package does not load the engine."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, f"{tmp_path}/records.db"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    put_together, started, served, statuses = json.loads(done.stdout)
    engine = {
        "runtime",
        "exchange.exchange",
        "formats.rounds",
        "mcp.mcp_tools",
        "providers.provider",
        "pool.pool",
        "upstream.client",
    }
    engine = {f"fastapi_aibridge.{name}" for name in engine}
    assert not engine & set(put_together)
    assert engine <= set(started)
    assert set(served) - set(started) == set(), statuses
    assert set(statuses) == {200, 401}, statuses
