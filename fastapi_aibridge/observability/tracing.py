"""Spans through the OpenTelemetry API, at no cost while no tracer provider is set."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import Span, Tracer

NAME = "fastapi_aibridge"


def tracer() -> Tracer | None:
    """The tracer, or None where nobody listens: then not even attributes are put together.

    Each bridge asks once: the API looks into the environment every time, which is dearer than a whole acquire.
    """
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider.get_tracer(NAME)


def fail(span: Span, error: BaseException) -> None:
    """Mark a span as failed with the error's class; its text could hold what a span must not."""
    span.set_status(trace.StatusCode.ERROR, type(error).__name__)
