"""Exports traces by OTLP if the environment names an endpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from fastapi_aibridge.installing import install_command

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
SERVICE_NAME = "fastapi-aibridge-example"
"""The service's name in traces, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` sets another one."""


_FLUSH_TIMEOUT = 3_000
"""Milliseconds that the shutdown waits for the exporter to send the last spans."""


def set_up_tracing() -> Callable[[], object] | None:
    """Install the OpenTelemetry SDK with an OTLP exporter over HTTP, and return a function that flushes its spans.

    Returns None if no endpoint is set. Call the function when the app stops: a process that is ended by a signal does
    not reach the SDK's own exit handler. Raises `RuntimeError` if the exporter is not installed.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"{' or '.join(_ENDPOINTS)} is set, but the exporter is not installed: {install_command('otlp')}"
        ) from error

    resource = Resource.create({"service.name": SERVICE_NAME}).merge(OTELResourceDetector().detect())
    tracer_provider = TracerProvider(resource=resource)
    tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracer_provider)
    return partial(tracer_provider.force_flush, _FLUSH_TIMEOUT)
