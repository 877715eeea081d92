"""The choice of the recorder: the app's own, or the one that the settings name."""

from __future__ import annotations

from collections.abc import Sequence

from ..settings import RecorderSettings
from .fanout import FanoutRecorder, RecorderFactory
from .null import NullRecorder
from .recorder import Recorder


def configured_recorder(
    settings: RecorderSettings, given: Recorder | RecorderFactory | Sequence[Recorder | RecorderFactory] | None
) -> Recorder:
    """Return the recorder to use. `given` holds the app's own recorders, if any; they override the settings."""
    capture = settings.capture_content
    if given is not None:
        if isinstance(given, Recorder) and capture:
            return given
        return FanoutRecorder(*given if isinstance(given, Sequence) else (given,), capture_content=capture)
    if not settings.enabled:
        return NullRecorder()
    from .sql import SQLRecorder  # takes a fifth of a second; an app with its own recorder does not need it

    return SQLRecorder(
        settings.url.get_secret_value(),
        capture_content=capture,
        retention=settings.retention,
        max_text=settings.max_text,
    )
