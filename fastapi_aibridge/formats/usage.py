"""Token counts as providers report them, and as they are recorded."""

from __future__ import annotations

from ..recorder.records import TokenUsage
from .lenient import count, counts, member

_DETAILS_OUT = {
    "reasoning_tokens": "reasoning",
    "audio_tokens": "audio_output",
    "accepted_prediction_tokens": "accepted_prediction",
    "rejected_prediction_tokens": "rejected_prediction",
}
_DETAILS_IN = {"audio_tokens": "audio_input"}


def token_usage(message_id: str, usage: dict[str, object], start: str, end: str, *, partial: bool) -> TokenUsage:
    """OpenAI's usage object, of which chat and responses differ in names only; it counts cached tokens in."""
    details_in, details_out = member(usage, f"{start}_tokens_details"), member(usage, f"{end}_tokens_details")
    read, written = count(details_in.get("cached_tokens")), count(details_in.get("cache_write_tokens"))
    return TokenUsage(
        message_id=message_id,
        input_tokens=max(0, count(usage.get(f"{start}_tokens")) - read - written),
        output_tokens=count(usage.get(f"{end}_tokens")),
        cache_read_tokens=read,
        cache_write_tokens=written,
        extra=counts(details_out, _DETAILS_OUT) | counts(details_in, _DETAILS_IN),
        partial=partial,
    )
