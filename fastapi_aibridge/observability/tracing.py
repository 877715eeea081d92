"""Spans of the OpenTelemetry API, without cost while no tracer provider is set."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, Tracer

T = TypeVar("T")
NAME = "fastapi_aibridge"


def tracer() -> Tracer | None:
    """Return the tracer, or None without a tracer provider, so that callers need not even build attributes.

    Each bridge calls this once: the API reads the environment every time, which costs more than a whole acquire.
    """
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider.get_tracer(NAME)


def fail(span: Span, error: BaseException) -> None:
    """Mark a span as failed, with the error's class only: its text may hold secrets or content."""
    span.set_status(trace.StatusCode.ERROR, type(error).__name__)


def detached(name: str, attributes: Mapping[str, str], work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """Wrap `work` in a child span of the current one, for a task that does not inherit the current context."""
    listener = tracer()
    if listener is None:
        return work
    parent = NonRecordingSpan(trace.get_current_span().get_span_context())
    return _within(listener, name, attributes, parent, work)


async def _within(
    listener: Tracer, name: str, attributes: Mapping[str, str], parent: Span, work: Coroutine[Any, Any, T]
) -> T:
    with listener.start_as_current_span(
        name,
        trace.set_span_in_context(parent),
        attributes=dict(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            return await work
        except BaseException as error:
            fail(span, error)
            raise
