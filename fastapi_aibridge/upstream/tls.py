"""TLS contexts for upstreams: trusted authorities and client certificates."""

from __future__ import annotations

import asyncio
import importlib
import ssl
from typing import NamedTuple


class TLSContexts:
    """One `ssl.SSLContext` for each pair of files. Reading the files takes some milliseconds, so a thread does it."""

    def __init__(self) -> None:
        self._contexts: dict[_Files, ssl.SSLContext] = {}  # as many as there are providers with files of their own

    async def get(self, ca_file: str | None, client_cert: str | None) -> ssl.SSLContext:
        """Return the context of these files. Raises `OSError` and `ssl.SSLError` where a file cannot be used."""
        files = _Files(ca_file, client_cert)
        context = self._contexts.get(files)
        if context is None:
            context = self._contexts[files] = await asyncio.to_thread(_context, files)
        return context


class _Files(NamedTuple):
    ca_file: str | None
    client_cert: str | None


def _context(files: _Files) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.ca_file)
    if files.ca_file is None and not _has_authorities(context):
        _trust_certifi(context)
    if files.client_cert is not None:
        context.load_cert_chain(files.client_cert)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _has_authorities(context: ssl.SSLContext) -> bool:
    """Whether the system has CA certificates; slim containers have none. A directory of them is read when needed."""
    return bool(context.cert_store_stats()["x509_ca"]) or ssl.get_default_verify_paths().capath is not None


def _trust_certifi(context: ssl.SSLContext) -> None:
    try:
        certifi = importlib.import_module("certifi")
    except ImportError:
        return
    context.load_verify_locations(certifi.where())
