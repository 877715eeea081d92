"""Metrics with bounded labels, and spans that cost nothing without a tracer provider."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from fastapi_aibridge.observability import Metrics
from fastapi_aibridge.observability.collectors import AtScrape, recorder_metrics
from fastapi_aibridge.observability.tracing import fail, tracer
from fastapi_aibridge.recorder.committer import WriterStats
from fastapi_aibridge.recorder.records import Interception, Status, TokenUsage


def interception(initiator: str = "alice", model: str = "gpt-5") -> Interception:
    return Interception(
        id="i",
        initiator_id=initiator,
        api_key_id="",
        provider="openai",
        provider_type="openai",
        route="/v1/responses",
        model=model,
        streaming=True,
        client="Codex",
        user_agent=None,
        session_id=None,
        correlating_tool_call_id=None,
        credential_kind="centralized",
        credential_hint=None,
        metadata={},
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_interceptions_are_counted() -> None:
    """Running interceptions are counted, and ended ones by labels with few values."""
    metrics = Metrics()
    value = metrics.registry.get_sample_value
    metrics.started()
    metrics.started()
    assert value("aibridge_interceptions_in_flight") == 2
    metrics.ended(interception(), Status.COMPLETED, 0.2)
    metrics.ended(interception("bob", "gpt-4"), Status.COMPLETED, 3.0)
    assert value("aibridge_interceptions_in_flight") == 0
    labels = {"provider": "openai", "route": "/v1/responses"}
    ended = {**labels, "status": "completed", "client": "Codex", "streaming": "true"}
    assert value("aibridge_interceptions_total", ended) == 2
    assert value("aibridge_interception_duration_seconds_count", labels) == 2
    assert value("aibridge_interception_duration_seconds_sum", labels) == pytest.approx(3.2)


def test_no_label_tells_who_or_what() -> None:
    """Principals and models are no labels, because callers choose them without bound."""
    metrics = Metrics()
    metrics.started()
    metrics.ended(interception("alice-with-a-name", "model-with-a-name"), Status.FAILED, 0.1)
    assert b"with-a-name" not in generate_latest(metrics.registry)


def test_tokens_are_counted_by_kind() -> None:
    """Tokens are counted by kind; a kind without tokens adds no sample."""
    metrics = Metrics()
    metrics.tokens("openai", TokenUsage(message_id="m", input_tokens=5, output_tokens=7, cache_read_tokens=2))
    metrics.tokens("openai", TokenUsage(message_id="m", input_tokens=1))
    kinds = ("input", "output", "cache_read", "cache_write")
    values = [
        metrics.registry.get_sample_value("aibridge_tokens_total", {"provider": "openai", "kind": kind})
        for kind in kinds
    ]
    assert values == [6, 7, 2, 0]


def test_a_registry_can_be_given() -> None:
    """An app can pass its own registry, and two apps share none by default."""
    registry = CollectorRegistry()
    assert Metrics(registry).registry is registry
    assert Metrics().registry is not Metrics().registry


def test_there_is_no_tracer_while_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a tracer provider the tracer is None, so that not even attributes are built; with one it exists."""
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    assert tracer() is None
    provider = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    assert tracer() is not None


def test_a_failed_span_says_no_more_than_the_kind() -> None:
    """A failed span has the error's kind, but not its text, which may be private."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("t").start_as_current_span("s") as span:
        fail(span, ValueError("sk-secret"))
    [finished] = exporter.get_finished_spans()
    assert (finished.status.status_code, finished.status.description) == (trace.StatusCode.ERROR, "ValueError")
    assert "sk-secret" not in finished.to_json()


def test_whatever_others_choose_is_bounded() -> None:
    """The number of label values is bounded: known ones are still counted, and the rest together as `other`."""
    metrics = Metrics()
    value = metrics.registry.get_sample_value
    metrics.tool_called("files", "read", 0.1, is_error=False)
    for number in range(5000):
        metrics.started()
        metrics.ended(replace(interception(), client=f"c-{number}", route=f"/r-{number}"), Status.COMPLETED, 0.1)
        metrics.tool_called("files", f"tool-{number}", 0.1, is_error=False)
        metrics.passed_through("openai", f"/v1/{number}", 100 + number % 900)
        metrics.retried("openai", str(number))
        metrics.refused(f"code-{number}")
    metrics.tool_called("files", "read", 0.1, is_error=False)
    assert len(generate_latest(metrics.registry)) < 4_000_000
    assert len(list(metrics.registry.collect())) < 30
    assert sum(len(family.samples) for family in metrics.registry.collect()) < 25_000
    assert value("aibridge_tool_duration_seconds_count", {"server": "files", "tool": "read", "outcome": "ok"}) == 2
    others = value("aibridge_tool_duration_seconds_count", {"server": "files", "tool": "other", "outcome": "ok"})
    assert others == 5000 - 499
    ended = (
        sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "aibridge_interceptions_total"
    )
    assert sum(ended) == 5000


def test_a_long_name_is_cut() -> None:
    """A long label value is cut, because every scrape would contain it."""
    metrics = Metrics()
    metrics.tool_called("s", "x" * 10_000, 0.1, is_error=False)
    metrics.tool_called("s", "x" * 10_000, 0.1, is_error=False)
    assert len(generate_latest(metrics.registry)) < 20_000


def test_what_the_recorder_could_not_write_is_exposed() -> None:
    """The counts of a recorder's writer are exposed, and are zero for a recorder without them."""

    class Counting:
        stats = WriterStats(failures=3, refused=2, set_aside=1)
        pending = 7

    for recorder, wanted in ((Counting(), (3, 2, 1, 7)), (object(), (0, 0, 0, 0)), (None, (0, 0, 0, 0))):
        registry = CollectorRegistry()
        registry.register(AtScrape(partial(recorder_metrics, recorder)))
        names = ("failures_total", "refused_total", "set_aside_total", "pending")
        assert tuple(registry.get_sample_value(f"aibridge_recorder_{name}") for name in names) == wanted
