"""Rewrites the parameters that tools declare into a form that all providers accept.

A provider refuses a whole request for one tool whose schema it does not like, so each schema is rewritten once, when
the tool is first seen, into the subset that all of them are known to accept.
"""

from .offered import OfferedSchema, offered_schema
from .property_names import restored

__all__ = ["OfferedSchema", "offered_schema", "restored"]
