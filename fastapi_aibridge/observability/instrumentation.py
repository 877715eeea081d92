"""Server spans for the app that the plugin lives in."""

from __future__ import annotations

from fastapi import FastAPI


def instrument(app: FastAPI) -> None:
    """See to it that each request of the app has one server span, and none for the pieces of a stream.

    Newer versions of FastAPI make that span themselves as soon as a tracer provider is set, be it before this call or
    after it: then there is nothing to do. For others, and where `FastAPI(telemetry={"tracing": False})` switched it
    off, this is opentelemetry-instrumentation-fastapi without its spans for ASGI messages. Beside FastAPI's own it
    would double the spans of mounted apps, which see only the outer app's own.
    """
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    if not _traces_itself(app) and not getattr(app, "_is_instrumented_by_opentelemetry", False):
        FastAPIInstrumentor.instrument_app(app, exclude_spans=["send", "receive"])


def _traces_itself(app: FastAPI) -> bool:
    config = getattr(getattr(app, "_native_telemetry", None), "config", None) or {}
    return bool(config.get("tracing"))
