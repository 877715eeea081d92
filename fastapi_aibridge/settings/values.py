"""The types of single values: durations, sizes, secrets, headers, URLs, paths, files."""

from __future__ import annotations

import base64
import json
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, HttpUrl, SecretStr, TypeAdapter, ValidationError

from ..masking import masked_secret

_FRAMING = {"connection", "content-length", "transfer-encoding"}
"""Headers that the HTTP client writes; a second one would make the request ambiguous."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("this is a number, not true or false")  # noqa: TRY004
    return value


Count = Annotated[int, BeforeValidator(no_boolean)]
"""A whole number. JSON and TOML have `true`, which would otherwise count as 1."""


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return no_boolean(value)
    if match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", value):
        return float(match[1]) * _UNITS[match[2]]
    try:
        return float(value)  # such as -1 and nan, which the bounds refuse
    except ValueError:
        raise ValueError("a duration is a number of seconds, or has a unit: 90s, 15m, 12h, 60d") from None


NonNegativeSeconds = Annotated[float, BeforeValidator(_duration), Field(ge=0, allow_inf_nan=False)]
"""Seconds, or a number with a unit: `90s`, `15m`, `12h`, `60d`."""
PositiveSeconds = Annotated[NonNegativeSeconds, Field(gt=0)]


def _size(value: object) -> object:
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+)\s*([KMG]iB)\s*", value, re.IGNORECASE)):
        return int(match[1]) * _SIZES[match[2].upper()]
    return no_boolean(value)


Size = Annotated[int, BeforeValidator(_size), Field(ge=1)]
"""Bytes, or a number with a unit: `512KiB`, `32MiB`, `1GiB`."""


def _key(secret: SecretStr) -> SecretStr:
    key = secret.get_secret_value().strip()
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise ValueError("a key has no spaces, line breaks or characters beyond ASCII")
    return masked_secret(key)


Key = Annotated[SecretStr, AfterValidator(_key)]
"""A secret sent in a header. White space around it, such as the line break at the end of a file, is dropped."""


def _one_or_more(value: object) -> object:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError('this begins like a JSON list and is none; write ["first key", "second key"]') from None
    return [value] if isinstance(value, str | SecretStr) else value


Keys = Annotated[tuple[Key, ...], BeforeValidator(_one_or_more)]
"""One key, or a list of keys that are all valid at the same time."""


def _header_name(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no header name")
    return name


HeaderName = Annotated[str, AfterValidator(_header_name)]


def _headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        _header_name(name)
        if name.lower() in _FRAMING:
            raise ValueError(f"the header {name!r} is not for settings: the HTTP client writes it")
        if sum(name.lower() == other.lower() for other in headers) > 1:
            raise ValueError(f"the header {name!r} is there twice, in different cases")
        if not _HEADER_VALUE.fullmatch(value.get_secret_value()):
            raise ValueError(f"the value of header {name!r} has characters that no header may have")
    return {name: masked_secret(value) for name, value in headers.items()}


Headers = Annotated[dict[str, SecretStr], AfterValidator(_headers)]
"""Header names and values. Values may be secrets and are not shown."""

_HTTP_URL: TypeAdapter[HttpUrl] = TypeAdapter(HttpUrl)


def _is_no_string(value: object) -> object:
    return str(value) if isinstance(value, HttpUrl) else value


def _http_url(url: SecretStr) -> SecretStr:
    try:
        return masked_secret(str(_HTTP_URL.validate_python(url.get_secret_value())))
    except ValidationError as error:
        raise ValueError(error.errors(include_input=False, include_context=False)[0]["msg"]) from None


SecretURL = Annotated[SecretStr, BeforeValidator(_is_no_string), AfterValidator(_http_url)]
"""An HTTP URL that is not shown, because some servers expect their key in it."""


def _proxy(url: SecretStr) -> SecretStr:
    text = url.get_secret_value().strip()
    if text != "env":
        parts = urlsplit(text)
        try:
            usable = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("a proxy is http://host:port, with user:password@ before the host if needed, or env")
    return masked_secret(text)


Proxy = Annotated[SecretStr, AfterValidator(_proxy)]
"""The URL of an HTTP proxy, secret because of its password; `env` takes the proxy that the environment names."""


def _database(url: SecretStr) -> SecretStr:
    if not re.match(r"(sqlite|postgresql)(\+\w+)?://", url.get_secret_value()):
        raise ValueError("records go to SQLite or PostgreSQL: a URL that begins with sqlite:// or postgresql://")
    return masked_secret(url)


DatabaseURL = Annotated[SecretStr, AfterValidator(_database)]
"""A SQLAlchemy URL, secret because it may hold the database's password."""


def _redis(url: SecretStr) -> SecretStr:
    text = re.sub(r"^valkey(s?)://", r"redis\1://", url.get_secret_value().strip())
    if text and not re.match(r"(rediss?|unix)://", text):
        raise ValueError("a URL of Redis is redis://host:6379/0, rediss://... for TLS, or unix:///path/to/socket")
    return masked_secret(text)


RedisURL = Annotated[SecretStr, AfterValidator(_redis)]
"""A URL of Redis or Valkey, secret because it may hold the password."""


def _prefix(prefix: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]{1,64}", prefix) or re.search(r"[*?\[\]\\^]", prefix):
        raise ValueError("a prefix has 1 to 64 visible ASCII characters without * ? [ ] ^ and backslash")
    return prefix


RedisPrefix = Annotated[str, AfterValidator(_prefix)]


def _fernet_key(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value().strip()
    try:
        is_key = len(base64.urlsafe_b64decode(text)) == 32 and len(text) == 44
    except ValueError:
        is_key = False
    if not is_key:
        raise ValueError(
            "a Fernet key is 32 random bytes in URL-safe base64; make one with: "
            'python -c "import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())"'
        )
    return masked_secret(text)


FernetKey = Annotated[SecretStr, AfterValidator(_fernet_key)]
"""A key that encrypts secrets at rest."""


def _path(path: str) -> str:
    plain = path.removesuffix("/*")
    if not re.fullmatch(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()+,;=:@-]+)+", plain):
        raise ValueError(f"{path!r} is no path: write '/v1/files', or '/v1/files/*' for all that is below it")
    return path


RelayedPath = Annotated[str, AfterValidator(_path)]
"""A path below a provider's base URL; one that ends in `/*` stands for all below it, not for itself."""


def _loadable(load: Callable[[ssl.SSLContext, str], None], what: str) -> Callable[[Path], Path]:
    def validate(path: Path) -> Path:
        if "-----BEGIN" in str(path):  # such as a private key, which must not be quoted
            raise ValueError("this is the path of a PEM file, not its content")
        try:
            load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), str(path.expanduser()))
        except ssl.SSLError:
            raise ValueError(f"{str(path)!r} holds no {what} in PEM form") from None
        except OSError as error:
            raise ValueError(f"{str(path)!r} cannot be read: {error.strerror}") from None
        except RuntimeError:  # raised by expanduser()
            raise ValueError(f"{str(path)!r} begins with the home directory of nobody") from None
        return path.expanduser()

    return validate


CAFile = Annotated[
    Path, AfterValidator(_loadable(lambda context, path: context.load_verify_locations(path), "certificates"))
]
"""A PEM file with the certificate authorities that are trusted instead of the system's."""


def _no_password() -> str:
    # Without a password OpenSSL would ask at the terminal, and wait.
    return ""


ClientCertificate = Annotated[
    Path,
    AfterValidator(
        _loadable(
            lambda context, path: context.load_cert_chain(path, password=_no_password),
            "certificate with its private key, unencrypted,",
        )
    ),
]
"""A PEM file with a client certificate and its private key."""
