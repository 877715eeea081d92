"""Server spans for the app that hosts the plugin."""

from __future__ import annotations

from fastapi import FastAPI


def instrument(app: FastAPI) -> None:
    """Give each request of the app one server span, and none for the chunks of a stream.

    Newer versions of FastAPI create that span themselves as soon as a tracer provider is set, before or after this
    call; then this does nothing. Otherwise, also with `FastAPI(telemetry={"tracing": False})`, it applies
    opentelemetry-instrumentation-fastapi without its spans for ASGI messages. Using both would double the spans of
    mounted apps, which see only the outer app's own.
    """
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    if not _traces_itself(app) and not getattr(app, "_is_instrumented_by_opentelemetry", False):
        FastAPIInstrumentor.instrument_app(app, exclude_spans=["send", "receive"])


def _traces_itself(app: FastAPI) -> bool:
    config = getattr(getattr(app, "_native_telemetry", None), "config", None) or {}
    return bool(config.get("tracing"))
