"""One request and its response, from the first byte to the end of its record, for all formats, streamed or not."""

from .admission import Admitted, admit
from .engine import Engine
from .exchange import Exchange
from .passthrough import PassThrough

__all__ = ["Admitted", "Engine", "Exchange", "PassThrough", "admit"]
