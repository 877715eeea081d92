"""The opaque cursor of a listing: start and id of a page's last interception. Also conversions of timestamps."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta

from .recorder import InvalidCursor

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(moment: datetime) -> int:
    """Return microseconds since 1970 in UTC; a naive datetime is taken as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    return EPOCH + timedelta(microseconds=value)


def encode_cursor(started_at: int, interception_id: str) -> str:
    """Return the cursor of the page after this interception; `started_at` is in microseconds."""
    return urlsafe_b64encode(f"{started_at}:{interception_id}".encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> tuple[int, str]:
    """Return the start in microseconds and the id. Raises `InvalidCursor`."""
    try:
        text = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode()
        started_at, colon, interception_id = text.partition(":")
        moment = int(started_at)
    except ValueError:
        raise InvalidCursor("the cursor is not one of this listing's") from None
    if not colon or not interception_id or "\0" in interception_id or abs(moment) >= 2**63:
        raise InvalidCursor("the cursor is not one of this listing's")
    return moment, interception_id


def decode_place(cursor: str, listing: str) -> int:
    """Return the place in the listing of this name. Raises `InvalidCursor`, also for a cursor of another listing."""
    place, name = decode_cursor(cursor)
    if name != listing or place < 0:
        raise InvalidCursor("the cursor is not one of this listing's")
    return place
