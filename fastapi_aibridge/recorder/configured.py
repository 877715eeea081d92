"""The recorder that an app gave, or that the settings ask for."""

from __future__ import annotations

from collections.abc import Sequence

from ..settings import RecorderSettings
from .fanout import FanoutRecorder, RecorderFactory
from .null import NullRecorder
from .recorder import Recorder


def configured_recorder(
    settings: RecorderSettings, given: Recorder | RecorderFactory | Sequence[Recorder | RecorderFactory] | None
) -> Recorder:
    """`given` is the app's own, if it has one or several."""
    capture = settings.capture_content
    if given is not None:
        if isinstance(given, Recorder) and capture:
            return given
        return FanoutRecorder(*given if isinstance(given, Sequence) else (given,), capture_content=capture)
    if not settings.enabled:
        return NullRecorder()
    from .sql import SQLRecorder  # a fifth of a second, which an app with a recorder of its own need not wait

    return SQLRecorder(
        settings.url.get_secret_value(),
        capture_content=capture,
        retention=settings.retention,
        max_text=settings.max_text,
    )
