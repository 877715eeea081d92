"""The example app as users run it: a process, its start-up text and the commands in that text."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import anthropic
import httpx
import openai
import pytest

from fastapi_aibridge.testing import Reply, ScriptedProvider

from .process import App, running

ALICE = {"authorization": "Bearer demo-alice"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with running(tmp_path_factory.mktemp("app")) as app:
        yield app


def curl_commands(text: str) -> list[list[str]]:
    joined = text.replace("\\\n", "")
    return [shlex.split(line) for line in joined.splitlines() if line.startswith("curl ")]


def run_curl(command: list[str]) -> httpx.Response:
    """Send what curl would send. Needs no curl, but depends on the same quoting."""
    url, method, headers, body = "", "GET", {}, None
    words = iter(command[1:])
    for word in words:
        match word:
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "-d":
                method, body = "POST", next(words)
            case "-X":
                method = next(words)
            case "-N":
                pass
            case _:
                url = word
    return httpx.request(method, url, headers=headers, content=body)


def test_every_curl_command_of_the_text_works(app: App) -> None:
    """The running app responds with 200 to each printed curl command."""
    commands = curl_commands(app.welcome)
    assert len(commands) == 7
    answers = {command[-1]: run_curl(command) for command in commands}
    assert [answer.status_code for answer in answers.values()] == [200] * len(answers)


def test_the_streamed_curl_commands_stream(app: App) -> None:
    """The first commands of the text stream a response event by event."""
    chat, responses, messages, *_ = [run_curl(command).text for command in curl_commands(app.welcome)]
    assert chat.endswith("data: [DONE]\n\n")
    assert "event: response.completed\n" in responses
    assert '"You said: Hello"' in messages


@pytest.mark.parametrize("number", [0, 1], ids=["openai", "anthropic"])
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_sdk_snippets_of_the_text_work_in_any_shell(app: App, number: int, shell: str) -> None:
    """Each printed Python snippet prints the model's answer, without an active virtual environment."""
    command = re.findall(r"^\S+ -c '.*?'$", app.welcome, flags=re.DOTALL | re.MULTILINE)[number]
    environment = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(
        [str(shutil.which(shell)), "-c", command], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.stdout.strip() == "You said: Hello", done.stderr


def test_a_browser_finds_something(app: App) -> None:
    """The links of the first page work."""
    answer = httpx.get(f"{app.base}/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    links = re.findall(r'href="([^"]+)"', answer.text)
    assert len(links) == 2
    for link in links:
        assert httpx.get(f"{app.base}/{link}").status_code == 200
    assert f"{app.base}/docs" in app.welcome


def test_the_codex_configuration_of_the_text_is_valid(app: App) -> None:
    """The TOML for Codex is valid, and its base URL responds as the Responses API."""
    configuration = tomllib.loads(app.welcome[app.welcome.index('model = "gpt-5"\n') : app.welcome.index("# admin")])
    provider = configuration["model_providers"][configuration["model_provider"]]
    assert (provider["wire_api"], provider["env_key"]) == ("responses", "AIBRIDGE_KEY")
    with openai.OpenAI(base_url=provider["base_url"], api_key="demo-alice") as client:
        assert client.responses.create(model="gpt-5", input="Hello").output_text == "You said: Hello"


def test_claude_code_finds_the_gateway(app: App) -> None:
    """The base URL and the kind of token for Claude Code work with Anthropic's SDK."""
    base_url, token = re.findall(r"ANTHROPIC_BASE_URL=(\S+) ANTHROPIC_AUTH_TOKEN=(\S+) claude", app.welcome)[0]
    with anthropic.Anthropic(base_url=base_url, auth_token=token, api_key=None) as client:
        message = client.messages.create(
            model="claude-sonnet-5", max_tokens=99, messages=[{"role": "user", "content": "think: so\nHello"}]
        )
    assert [block.type for block in message.content] == ["thinking", "text"]


def test_a_story_is_streamed(app: App) -> None:
    """A story arrives token by token and complete."""
    with httpx.stream("POST", f"{app.base}/stories", headers=ALICE, json={"text": "one two three"}) as answer:
        pieces = list(answer.iter_text())
    assert answer.status_code == 200
    assert "".join(pieces) == "You said: one two three"
    assert len(pieces) > 2


@pytest.mark.parametrize("how", ["fail stream", "fail cut"])
def test_a_story_that_breaks_off_is_no_success(app: App, how: str) -> None:
    """The caller's client reports that a story which breaks off is incomplete."""
    story = {"text": f"{how}\none two three"}
    with httpx.stream("POST", f"{app.base}/stories", headers=ALICE, json=story) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()


@pytest.mark.parametrize(("told", "status"), [("429", 429), ("500", 502), ("400", 502), ("503", 503)])
@pytest.mark.parametrize("path", ["/stories", "/summaries"])
def test_a_refusal_of_the_model_is_no_200(app: App, path: str, told: str, status: int) -> None:
    """A refused model call is not a 200, streamed or not."""
    answer = httpx.post(f"{app.base}{path}", headers=ALICE, json={"text": f"fail {told}"}, timeout=30)
    assert (answer.status_code, "detail" in answer.json()) == (status, True)


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_a_handler_of_the_app_knows_its_caller(app: App, user: str) -> None:
    """`GET /me` runs on the caller's bridge and returns the caller's providers."""
    answer = httpx.get(f"{app.base}/me", headers={"authorization": f"Bearer demo-{user}"})
    assert answer.json() == {
        "initiator_id": user,
        "providers": [{"name": "openai", "type": "openai"}, {"name": "anthropic", "type": "anthropic"}],
    }
    assert httpx.get(f"{app.base}/me").status_code == 401


def test_it_ends_when_told_to(tmp_path: Path) -> None:
    """SIGTERM ends the app and its offline provider in time and without a traceback."""
    with running(tmp_path) as app:
        headers = {"authorization": "Bearer demo-alice"}
        request = {"model": "gpt-5-slow", "stream": True, "input": "word " * 100}
        with httpx.stream("POST", f"{app.base}/ai/openai/v1/responses", headers=headers, json=request) as response:
            next(response.iter_lines())
            assert "Traceback" not in app.stop()


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    """An invalid setting ends the start with its name and no traceback."""
    app = App(tmp_path, {"AIBRIDGE_POOL__MAX_ITEMS": "none"})
    _, stderr = app.process.communicate(timeout=15)
    assert app.process.returncode == 2
    assert "AIBRIDGE_POOL__MAX_ITEMS" in stderr
    assert "Traceback" not in stderr


def test_a_configured_app_has_no_demonstration(tmp_path: Path) -> None:
    """With a provider of the environment there are no demo users, no admin token and no offline provider."""
    with (
        ScriptedProvider(Reply("From the real one"), api_key="sk-real").serve_in_thread() as base_url,
        running(
            tmp_path,
            AIBRIDGE_PROVIDERS__OPENAI__BASE_URL=f"{base_url}/v1",
            AIBRIDGE_PROVIDERS__OPENAI__API_KEY="sk-real",
            AIBRIDGE_CLIENT_KEYS__CAROL="k-carol",
        ) as app,
    ):
        assert "YOUR_KEY" in app.welcome
        assert "demo-" not in app.welcome
        assert "k-carol" not in app.welcome
        url = f"{app.base}/ai/openai/v1/responses"
        answers = [
            httpx.post(url, headers={"authorization": f"Bearer {key}"}, json={"model": "gpt-5", "input": "Hello"})
            for key in ("k-carol", "demo-alice")
        ]
        assert [answer.status_code for answer in answers] == [200, 401]
        assert "From the real one" in answers[0].text
        admin = httpx.get(f"{app.base}/ai/admin/pool", headers={"authorization": "Bearer demo-admin"})
        assert admin.status_code == 403


class Collector(ThreadingHTTPServer):
    """A server that takes the spans of an OTLP exporter."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), CollectorHandler)


class CollectorHandler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.server.paths.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def test_traces_are_exported_where_an_endpoint_is_named(tmp_path: Path) -> None:
    """With an OTLP endpoint in the environment, the spans of requests arrive there under the example's service name."""
    with Collector() as collector:
        Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        with running(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as app:
            httpx.get(f"{app.base}/me", headers={"authorization": "Bearer demo-alice"}).raise_for_status()
            app.stop()
        collector.shutdown()
    assert set(collector.paths) == {"/v1/traces"}
    exported = b"".join(collector.bodies)
    assert b"fastapi-aibridge-example" in exported
    assert b"GET /me" in exported
