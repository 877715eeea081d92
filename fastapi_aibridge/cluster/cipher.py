"""Encryption of secrets that leave the process."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import SecretStr

from ..errors import SettingsError
from ..installing import install_command


class Cipher:
    """Encrypts with the first of `SECRET_KEYS` and decrypts with any, so that keys can be replaced without downtime.

    Raises `SettingsError` without the extra `managed`.
    """

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        try:
            from cryptography.fernet import Fernet, InvalidToken, MultiFernet
        except ImportError:
            raise SettingsError(f"AIBRIDGE_SECRET_KEYS needs cryptography: {install_command('managed')}") from None

        self._fernet = MultiFernet([Fernet(key.get_secret_value()) for key in keys])
        self._invalid = InvalidToken

    def encrypted(self, data: bytes) -> bytes:
        return self._fernet.encrypt(data)

    def decrypted(self, token: bytes) -> bytes | None:
        """Return the plain text; None if no key fits or the token was altered."""
        try:
            return self._fernet.decrypt(token)
        except self._invalid:
            return None
