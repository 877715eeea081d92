"""The text that the terminal shows once the app serves: commands to copy and paste."""

from __future__ import annotations

import shlex
import sys
from string import Template

from example_app.settings import DEMO_ADMIN_TOKEN, DEMO_CLIENT_KEYS
from fastapi_aibridge import Settings

_GREETING = """\
The AI gateway is at $base/ai, its users are: $users.
The app's own routes are shown at $base/docs.
"""

_CURL = """\
# curl
curl -N $base/ai/$openai/v1/chat/completions -H 'Authorization: Bearer $key' -H 'Content-Type: application/json' \\
  -d '{"model": "gpt-5", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
curl -N $base/ai/$openai/v1/responses -H 'Authorization: Bearer $key' -H 'Content-Type: application/json' \\
  -d '{"model": "gpt-5", "stream": true, "input": "Hello"}'
curl -N $base/ai/$anthropic/v1/messages -H 'X-Api-Key: $key' -H 'anthropic-version: 2023-06-01' \\
  -H 'Content-Type: application/json' \\
  -d '{"model": "claude-sonnet-5", "max_tokens": 500, "messages": [{"role": "user", "content": "Hello"}]}'
curl $base/me -H 'Authorization: Bearer $key'
"""

_SDKS = """\
# openai SDK
$python -c 'from openai import OpenAI
client = OpenAI(base_url="$base/ai/$openai/v1", api_key="$key")
print(client.responses.create(model="gpt-5", input="Hello").output_text)'

# anthropic SDK
$python -c 'from anthropic import Anthropic
client = Anthropic(base_url="$base/ai/$anthropic", api_key="$key")
messages = [{"role": "user", "content": "Hello"}]
print(client.messages.create(model="claude-sonnet-5", max_tokens=500, messages=messages).content[0].text)'
"""

_AGENTS = """\
# Claude Code
env ANTHROPIC_BASE_URL=$base/ai/$anthropic ANTHROPIC_AUTH_TOKEN=$key claude

# Codex: in ~/.codex/config.toml, then: env AIBRIDGE_KEY=$key codex
model = "gpt-5"
model_provider = "aibridge"
[model_providers.aibridge]
name = "AI bridge"
base_url = "$base/ai/$openai/v1"
wire_api = "responses"
env_key = "AIBRIDGE_KEY"
"""

_ADMIN = """\
# admin
curl -X POST $base/ai/admin/reload -H 'Authorization: Bearer $admin'
curl $base/ai/admin/metrics -H 'Authorization: Bearer $admin'
curl $base/ai/admin/interceptions -H 'Authorization: Bearer $admin'
"""

_OFFLINE = """\
No provider is configured, so an offline one answers, with no key and no network. It obeys lines of a prompt:
  think: what to think  |  call TOOL {"json": 1}  |  fail 429  |  fail stream  |  fail cut  |  slow
An MCP server beside it has one tool, which the gateway injects: try the prompt  call clock {"zone": "Europe/Vienna"}
"""


def text(base: str, settings: Settings, *, offline: bool) -> str:
    """The commands for an app at this base URL. The only keys in them are those of the demonstration."""
    demo_key = DEMO_CLIENT_KEYS["alice"]
    keys = {key.get_secret_value() for keys in settings.client_keys.values() for key in keys}
    admin = settings.admin_token.get_secret_value() if settings.admin_token else None
    names = {provider.type: name for name, provider in reversed(settings.providers.items())}
    values = {
        "openai": names.get("openai", "openai"),
        "anthropic": names.get("anthropic", "anthropic"),
        "base": base,
        "users": ", ".join(settings.client_keys) or "none yet",
        # The interpreter that runs this app has the SDKs, even if the reader's shell has not activated its environment.
        "python": shlex.quote(sys.executable),
        "key": demo_key if demo_key in keys else "YOUR_KEY",
        "admin": DEMO_ADMIN_TOKEN if admin == DEMO_ADMIN_TOKEN else "YOUR_ADMIN_TOKEN",
    }
    parts = [_GREETING]
    if offline:
        parts.append(_OFFLINE)
    parts += [_CURL, _SDKS, _AGENTS]
    parts.append(_ADMIN if admin is not None else "Admin routes are off: set AIBRIDGE_ADMIN_TOKEN.\n")
    return "\n".join(Template(part).substitute(values) for part in parts)
