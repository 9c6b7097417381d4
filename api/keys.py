"""API keys: known only by their SHA-256, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path

from api.errors import AuthenticationError
from model.errors import ConfigError

_DIGEST = re.compile(r"[0-9a-f]{64}")
MAY_LOOSEN = "may-loosen-guards"
"""Word behind a key's digest: its requests may ask for less than the server's policies."""


class ApiKeys:
    """The set of keys that may use the model."""

    def __init__(self, digests: Mapping[bytes, bool]) -> None:
        """Accept keys whose SHA-256 (32 bytes) is among `digests`.

        The value says whether requests with the key may loosen the server's guards.
        """
        self._digests = dict(digests)

    @classmethod
    def from_file(cls, path: Path) -> ApiKeys:
        """Read hexadecimal SHA-256 digests, one a line; `#` starts a comment.

        Make a line with `printf %s "$KEY" | sha256sum`. Of what follows the digest one word counts:
        `may-loosen-guards`.

        Raises:
            ConfigError: The file cannot be read, holds no digest, or has a line that is none.
        """
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"api_key_file={path} cannot be read: {error}") from None
        digests: dict[bytes, bool] = {}
        for number, line in enumerate(lines, start=1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if not _DIGEST.fullmatch(words[0].lower()):
                raise ConfigError(
                    f"api_key_file={path} line {number}: expected 64 hexadecimal digits (SHA-256)"
                )
            digests[bytes.fromhex(words[0])] = MAY_LOOSEN in words[1:]
        if not digests:
            raise ConfigError(f"api_key_file={path} holds no key; at least 1 is needed")
        return cls(digests)

    def check_authorization(self, header: str) -> bool:
        """Accept the value of an `authorization` header (or gRPC metadata) with a known key.

        Returns:
            Whether the key's requests may loosen the server's guards.

        Raises:
            AuthenticationError: It is empty, no bearer token, or its key is not known.
        """
        scheme, _, key = header.partition(" ")
        if scheme.lower() == "bearer":
            may_loosen = self.find(key.strip().encode("latin-1", "replace"))
            if may_loosen is not None:
                return may_loosen
        found = "an unknown API key" if scheme else "no API key"
        raise AuthenticationError(f"the request has {found}; send 'authorization: Bearer KEY'")

    def accept(self, key: bytes) -> bool:
        """Whether the key is known; takes as long for a near miss as for a far one."""
        return self.find(key) is not None

    def find(self, key: bytes) -> bool | None:
        """Whether a known key may loosen the guards; None for one that is not known."""
        digest = hashlib.sha256(key).digest()
        found: bool | None = None
        for known, may_loosen in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = may_loosen
        return found
