"""The package's regular expressions that read untrusted text, each with its worst text.

A key is the module and the expression's name, or its text if it has no name.
"""

from __future__ import annotations

from collections.abc import Callable

Text = str | bytes

WORST: dict[str, Callable[[int], Text]] = {
    # Requests' headers and paths
    "exchange/client.py:_SDK": lambda size: "anthropic" + "a" * size,
    "exchange/client.py:_DOTNET": lambda size: "openai/1" + "0" * size,
    "providers/path.py:_WRITABLE": lambda size: b"%20a" * (size // 4) + b"%",
    "providers/path.py:_ENCODED_SLASH": lambda size: b"%2" * (size // 2),
    "providers/path.py:_UNRESERVED": lambda size: b"%2" * (size // 2),
    "providers/request_headers.py:_SECRET": lambda size: b"-api-" * (size // 5),
    "providers/request_headers.py:_TOKEN": lambda size: b"a" * size,
    "providers/own_headers.py:[^a-z0-9_.-]": lambda size: "\u00e4" * size,
    "observability/lines.py:_PLAIN": lambda size: "a" * size + " ",
    # JSON
    "formats/json_string.py:_WHOLE": lambda size: b"\\ud83d\\u" * (size // 8),
    "formats/scanner.py:_BEGIN": lambda size: b" " * size,
    "formats/scanner.py:_KEY": lambda size: b'"' + b"\\" * size,
    "formats/scanner.py:_SPACE": lambda size: b" " * size,
    "formats/scanner.py:_AFTER": lambda size: b" " * size,
    "formats/scanner.py:_SCALAR": lambda size: b"1" * size,
    "formats/scanner.py:_TOKEN": lambda size: b'"' + b"\\n" * (size // 2),
    "formats/prompts.py:_TAG": lambda size: "<environment_" * (size // 13),
    "formats/prompts.py:_HEADING": lambda size: "# AGENTS.md instructions for " + " " * size + "x",
    "formats/input_size.py:_IMAGE": lambda size: b'"url"        :        "data:image/' * (size // 33) + b"a" * 20,
    "formats/models_named.py:_FORM_FIELD": lambda size: b"name        " * (size // 12),
    "formats/models_named.py:_KEY": lambda size: b'"\\a' * (size // 3),
    "formats/models_named.py:_VALUE": lambda size: b" " * size,
    # Streams and answers
    "exchange/opening.py:_SPEAKS_OF_TOOLS": lambda size: b"function " * (size // 9),
    "formats/relayed_text.py:_DATA": lambda size: (b"a" * 255 + b" ") * (size // 256),
    "money/model_names.py:_DATE": lambda size: "-2026-01-0" * (size // 10),
    "formats/likeness.py:_TEXT": lambda size: b'"content": ' * (size // 11),
    "sse.py:_BLANK_LINES": lambda size: b"\r" * size,
    "sse.py:_LINE_FEEDS": lambda size: b"\n" * size,
    "exchange/tool_memory.py:_COUNTED": lambda size: "-" * size + "a",
    "upstream/message.py:STATUS_LINE": lambda size: b"HTTP/1.1 200 " + b"a" * size,
    "formats/responses/streams.py:_NUMBER": lambda size: b'"sequence_number"        ' * (size // 25),
    "upstream/keys.py:_SPEAKS_OF_KEY": lambda size: b"invalid api key " * (size // 16),
    # Records and what admins send
    "cluster/audit.py:_URL": lambda size: "://" * (size // 3) + " ",
    "cluster/audit.py:_SECRET": lambda size: "_keys" * (size // 5) + "x",
    "cluster/audit.py:_USER_INFO": lambda size: "://a" * (size // 4),
    "cluster/managed_edit.py:_HINT": lambda size: "a" * size + "://" + "b" * size,
    "cluster/managed_form.py:NAME": lambda size: "a" * size,
    "recorder/erasure.py:_FIRST_TEXT": lambda size: '"\\' * (size // 2),
    "routers/client_keys.py:_RFC_3339": lambda size: "2026-01-01T00:00:00." + "0" * size,
    "recorder/printable.py:_FORMULA": lambda size: "," + " " * size + "x",
    "recorder/printable.py:_IN_STRING": lambda size: "\\" * size,
    "recorder/printable.py:_CONTROL": lambda size: "\x1b" * size,
    "recorder/printable.py:_CONTROL_IN_JSON": lambda size: b"\xe2\x80" * (size // 2),
    # Tool servers
    "tool_schemas/property_names.py:_ALLOWED": lambda size: "a" * size,
    "tool_schemas/property_names.py:_ODD": lambda size: " " * size,
    "tool_schemas/visible_text.py:_NOT_SEEN": lambda size: "\u200b" * size,
    "mcp/naming.py:_ODD": lambda size: " " * size,
    "mcp/naming.py:_MARKED": lambda size: "_0123456" * (size // 8),
    "mcp/cookies.py:_COOKIE": lambda size: "a" * size,
    "mcp/cookies.py:(?i)(?:^|;)\\s*max-age\\s*=\\s*(?:0|-\\d+)\\s*(?:;|$)": lambda size: ";max-age=" * (size // 9),
}

OWN_TEXT: dict[str, str] = {
    "settings/": "the operator's settings",
    "formats/relayed_text.py:_STRING": "made for each name of a member; what it reads has some KiB at most",
    "money/price_list.py:": "the operator's base URLs",
    "observability/multiprocess.py:_FILE": "names of files that the process has made",
    "cluster/pattern_index.py:": "patterns of settings, and models and members, which have 256 characters at most",
    "principal.py:fnmatch": "patterns of the app or of an admin, and models, which have 256 characters at most",
    "mcp/credentials.py:_SECRET_NAME": "the names of headers in the operator's settings",
    "mcp/credentials.py:_HEADER_VALUE": "the operator's settings and the app's session keys",
    "testing/": "what an app's tests write",
    "__main__.py:": "the operator's command line",
    "mcp/server.py:self.tool_deny": "the operator's expression; names of tools are short",
    "mcp/server.py:self.tool_allow": "the operator's expression; names of tools are short",
    "tool_schemas/keywords.py:pattern": "compiled only, to see whether it is one",
}
"""Expressions that read no untrusted text, by the beginning of their key, with the reason."""
