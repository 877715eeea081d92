"""Trace spans of acquires and builds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, StatusCode, Tracer

from ..principal import Principal


def named(principal: Principal) -> dict[str, str]:
    return {"aibridge.initiator_id": principal.initiator_id, "aibridge.api_key_id": principal.api_key_id}


def is_traced() -> bool:
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


class BuildSpan:
    """Runs a bridge's start in a child span of the acquire that caused it, which may end before the start does."""

    def __init__(self, tracer: Tracer, principal: Principal, start: Callable[[], Awaitable[None]]) -> None:
        self._tracer = tracer
        self._principal = principal
        self._start = start
        # Only the acquire's place in its trace: the span itself need not be kept alive.
        self._parent: Span = NonRecordingSpan(trace.get_current_span().get_span_context())

    async def __call__(self) -> None:
        with self._tracer.start_as_current_span(
            "CachedBridgePool.Build",
            trace.set_span_in_context(self._parent),
            attributes=named(self._principal),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                await self._start()
            except BaseException as error:
                span.set_status(StatusCode.ERROR, type(error).__name__)  # its text may hold secrets
                raise
