"""API keys: known only by their SHA-256, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from api.errors import AuthenticationError
from model.errors import ConfigError

_DIGEST = re.compile(r"[0-9a-f]{64}")


class ApiKeys:
    """The set of keys that may use the model."""

    def __init__(self, digests: tuple[bytes, ...]) -> None:
        """Accept keys whose SHA-256 is among `digests`, 32 bytes each."""
        self._digests = digests

    @classmethod
    def from_file(cls, path: Path) -> ApiKeys:
        """Read hexadecimal SHA-256 digests, one a line; `#` starts a comment.

        Make a line with `printf %s "$KEY" | sha256sum`; what follows the digest is ignored.

        Raises:
            ConfigError: The file cannot be read, holds no digest, or has a line that is none.
        """
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"api_key_file={path} cannot be read: {error}") from None
        digests = []
        for number, line in enumerate(lines, start=1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if not _DIGEST.fullmatch(words[0].lower()):
                raise ConfigError(
                    f"api_key_file={path} line {number}: expected 64 hexadecimal digits (SHA-256)"
                )
            digests.append(bytes.fromhex(words[0]))
        if not digests:
            raise ConfigError(f"api_key_file={path} holds no key; at least 1 is needed")
        return cls(tuple(digests))

    def check_authorization(self, header: str) -> None:
        """Accept the value of an `authorization` header (or gRPC metadata) with a known key.

        Raises:
            AuthenticationError: It is empty, no bearer token, or its key is not known.
        """
        scheme, _, key = header.partition(" ")
        if scheme.lower() == "bearer" and self.accept(key.strip().encode("latin-1", "replace")):
            return
        found = "an unknown API key" if scheme else "no API key"
        raise AuthenticationError(f"the request has {found}; send 'authorization: Bearer KEY'")

    def accept(self, key: bytes) -> bool:
        """Whether the key is known; takes as long for a near miss as for a far one."""
        digest = hashlib.sha256(key).digest()
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(digest, known)
        return found
