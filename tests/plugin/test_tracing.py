"""Spans: their names and nesting, and the data that they must not contain."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fastapi_aibridge import AIBridge

from .apps import ALICE, ASK, CHAT, Model, add_me, bearer

STREAM = {**ASK, "stream": True}


class Tracing:
    """A tracer provider that a test installs when it needs it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def set_up(self) -> None:
        self._monkeypatch.setattr(trace, "_TRACER_PROVIDER", self._provider)

    def spans(self) -> list[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def names(self) -> list[str]:
        return [span.name for span in self.spans()]

    def servers(self) -> list[ReadableSpan]:
        return [span for span in self.spans() if span.kind is trace.SpanKind.SERVER]


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracing]:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    yield Tracing(monkeypatch)
    for app in list(_instrumented):
        FastAPIInstrumentor.uninstrument_app(app)
    _instrumented.clear()


_instrumented: list[FastAPI] = []


def instrumented(app: FastAPI, aibridge: AIBridge) -> None:
    aibridge.instrument(app)
    if getattr(app, "_is_instrumented_by_opentelemetry", False):
        _instrumented.append(app)


def test_a_request_is_one_tree_of_spans(model: Model, tracing: Tracing) -> None:
    """A request's spans are nested: server, pool, interception and upstream call; the pool's says hit or miss."""
    tracing.set_up()
    app = model.app()
    instrumented(app, app.state.aibridge)
    with TestClient(app) as client:
        for _ in range(2):
            assert client.post(CHAT, json=STREAM, headers=ALICE).status_code == 200
    mine = ["CachedBridgePool.Acquire", "Intercept", "Intercept.ProcessRequest.Upstream"]
    built = [mine[0], "CachedBridgePool.Build", *mine[1:]]
    assert [name for name in tracing.names() if not name.startswith("POST ")] == built + mine
    assert len(tracing.servers()) == 2
    server, acquire, _, intercept, upstream = tracing.spans()[:5]
    assert server.context is not None
    assert intercept.context is not None
    assert acquire.parent is not None
    assert intercept.parent is not None
    assert upstream.parent is not None
    assert acquire.parent.span_id == intercept.parent.span_id == server.context.span_id
    assert upstream.parent.span_id == intercept.context.span_id
    assert dict(acquire.attributes or {}) == {"aibridge.initiator_id": "alice", "aibridge.api_key_id": ""}
    assert dict(intercept.attributes or {}) == {
        "aibridge.initiator_id": "alice",
        "aibridge.api_key_id": "",
        "aibridge.provider": "openai",
        "aibridge.route": "/v1/chat/completions",
    }
    assert (upstream.attributes or {})["http.response.status_code"] == 200
    events = [[event.name for event in span.events] for span in tracing.spans() if "Acquire" in span.name]
    assert events == [["cache_miss"], ["cache_hit"]]


@pytest.mark.parametrize("when", ["before the app", "before instrument", "after instrument", "after the start"])
@pytest.mark.parametrize("mounted", [False, True])
@pytest.mark.parametrize("telemetry", [{}, {"tracing": False}], ids=["own", "off"])
def test_one_server_span_in_whichever_order(
    model: Model, tracing: Tracing, when: str, telemetry: Any, *, mounted: bool
) -> None:
    """`instrument` gives each request one server span and no spans for chunks, whether or not FastAPI traces."""
    if when == "before the app":
        tracing.set_up()
    aibridge = model.bridge()
    inner = FastAPI(telemetry=telemetry)
    inner.include_router(aibridge.router, prefix="/ai")
    add_me(inner)
    app = inner
    if mounted:
        app = FastAPI(telemetry=telemetry, lifespan=aibridge.lifespan)
        app.mount("/sub", inner)
    if when == "before instrument":
        tracing.set_up()
    instrumented(app, aibridge)
    instrumented(app, aibridge)
    if when == "after instrument":
        tracing.set_up()
    prefix = "/sub" if mounted else ""
    with TestClient(app) as client:
        if when == "after the start":
            tracing.set_up()
        for path, body in ((CHAT, STREAM), (CHAT, ASK)):
            assert client.post(prefix + path, json=body, headers=ALICE).status_code == 200
        assert client.get(f"{prefix}/me", headers=ALICE).status_code == 200
    assert len(tracing.servers()) == 3
    assert not [name for name in tracing.names() if "http send" in name or "http receive" in name]


def test_metrics_of_fastapi_alone_do_not_keep_the_server_span_away(model: Model, tracing: Tracing) -> None:
    """An app whose FastAPI records metrics but no traces still gets its server span."""
    tracing.set_up()
    aibridge = model.bridge()
    meters = MeterProvider(shutdown_on_exit=False)
    app = FastAPI(telemetry={"tracing": False, "meter_provider": meters})
    app.include_router(aibridge.router, prefix="/ai")
    instrumented(app, aibridge)
    with TestClient(app) as client:
        assert client.post(CHAT, json=STREAM, headers=ALICE).status_code == 200
    assert len(tracing.servers()) == 1
    meters.shutdown()


def test_an_app_that_was_instrumented_before_is_left_alone(
    model: Model, tracing: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    """If the instrumentation package is active already, there is no second server span and no warning."""
    tracing.set_up()
    app = model.app()
    FastAPIInstrumentor.instrument_app(app, exclude_spans=["send", "receive"])
    _instrumented.append(app)
    app.state.aibridge.instrument(app)
    with TestClient(app) as client:
        assert client.post(CHAT, json=STREAM, headers=ALICE).status_code == 200
    assert len(tracing.servers()) == 1
    assert "instrument" not in caplog.text


def test_no_span_holds_a_secret_or_a_prompt(model: Model, tracing: Tracing) -> None:
    """No name, attribute, event or status of a span holds private data, for valid and invalid requests."""
    tracing.set_up()
    secret = {**ASK, "messages": [{"role": "user", "content": "my-private-prompt"}]}
    app = model.app()
    with TestClient(app) as client:
        client.post(CHAT, json=secret, headers=ALICE)
        client.post(CHAT, json={**secret, "stream": True}, headers=ALICE)
        client.post(CHAT, content=json.dumps(secret)[:-1].encode(), headers=ALICE)
        client.post(CHAT, json={"messages": secret["messages"]}, headers=ALICE)
        client.post(CHAT, json=secret, headers=bearer("k-wrong"))
        client.post(CHAT, json=secret, headers={"X-AIBridge-Token": "k-alice", **bearer("sk-of-my-own-account")})
        client.post(CHAT, content=b"my-private-prompt", headers={**ALICE, "Content-Encoding": "gzip"})
        client.get("/ai/openai/v1/models", headers=ALICE)
        client.post("/ai/admin/reload", headers=bearer("t-admin"))
    model.provider  # noqa: B018 - the upstream's side is not under test
    text = "".join(span.to_json() for span in tracing.spans())
    assert len(tracing.spans()) > 10
    for private in ("k-alice", "k-wrong", "sk-central-openai", "sk-of-my-own", "t-admin", "my-private-prompt"):
        assert private not in text


def test_an_upstream_that_fails_marks_its_span(model: Model, tracing: Tracing) -> None:
    """The span of a failed upstream call has error status and the kind of the error, without its text."""
    tracing.set_up()
    app = FastAPI()
    provider = {"base_url": "http://127.0.0.1:1/v1", "api_key": "sk-central-openai", "max_retries": 0}
    app.include_router(model.bridge(settings=model.settings(providers={"openai": provider})).router, prefix="/ai")
    with TestClient(app) as client:
        assert client.post(CHAT, json=ASK, headers=ALICE).status_code == 502
    upstream = next(span for span in tracing.spans() if span.name.endswith("Upstream"))
    assert upstream.status.status_code is trace.StatusCode.ERROR
    assert "127.0.0.1" not in "".join(
        span.to_json() for span in tracing.spans() if span.kind is not trace.SpanKind.SERVER
    )


def test_without_a_provider_no_span_is_made(model: Model, tracing: Tracing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a tracer provider no span is created, not even one that does not record."""

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a span was begun although no tracer provider is set")

    for name in ("start_span", "start_as_current_span"):
        monkeypatch.setattr(trace.ProxyTracer, name, never)
        monkeypatch.setattr(trace.NoOpTracer, name, never)
    with TestClient(model.app()) as client:
        for _ in range(2):
            assert client.post(CHAT, json=STREAM, headers=ALICE).status_code == 200
        assert client.get("/me", headers=ALICE).status_code == 200
    assert tracing.spans() == []
