"""Server spans for the app that the plugin lives in."""

from __future__ import annotations

from fastapi import FastAPI


def instrument(app: FastAPI) -> None:
    """Trace the app's requests with opentelemetry-instrumentation-fastapi.

    The spans for each ASGI message are left out: a stream would make one for every piece. Does nothing where the app
    is traced already, by an earlier call or by FastAPI's own telemetry: a request has one server span.
    """
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    if not _traces_itself(app):
        FastAPIInstrumentor.instrument_app(app, exclude_spans=["send", "receive"])


def _traces_itself(app: FastAPI) -> bool:
    if getattr(app, "_is_instrumented_by_opentelemetry", False):
        return True
    native = getattr(app, "_native_telemetry", None)
    return native is not None and bool(native.enabled())
