"""The parameters of tools, from whatever a tool declares to what all providers take.

A provider refuses a whole request for one tool whose schema it does not like, so each schema is rewritten once, when
the tool is first seen, into the subset that all of them are known to take.
"""

from .offered import OfferedSchema, offered_schema
from .property_names import restored

__all__ = ["OfferedSchema", "offered_schema", "restored"]
