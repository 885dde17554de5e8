"""API keys: a file holds their digests, a client the keys.

Keys are 256 random bits, so a plain SHA-256 cannot be searched through, and a slow hash would only slow the
server down.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from watchkeeper.models.server.errors import ServerError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEADER = (
    "# API keys of watchkeeper models serve: a name and a digest a line; remove a line to revoke its key.\n"
)


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """Who may ask.

    Attributes:
        digests: SHA-256 of the key, in hexadecimal, by the name it was given.
    """

    digests: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> ApiKeys:
        """Read a file of keys.

        Raises:
            ServerError: If it cannot be read, holds no key, or a line is not right; the line is not shown,
                since it may be a key.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ServerError(f"the API keys {str(path)!r} cannot be read: {error}") from error
        digests: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            parts = line.split()
            if len(parts) != 2 or not _NAME.fullmatch(parts[0]) or not _DIGEST.fullmatch(parts[1]):
                raise ServerError(
                    f"line {number} of {str(path)!r} is no name and digest of a key; "
                    f"make one with: watchkeeper models api-key NAME --file {path}"
                )
            if parts[0] in digests:
                raise ServerError(f"line {number} of {str(path)!r} repeats the name {parts[0]!r}")
            digests[parts[0]] = parts[1].removeprefix("sha256:")
        if not digests:
            raise ServerError(
                f"{str(path)!r} holds no API key; make one with: "
                f"watchkeeper models api-key NAME --file {path}"
            )
        return cls(digests)

    def holder(self, key: str) -> str | None:
        """Return the name of a key, or None where it is none of these.

        Every digest is compared, each in constant time, so that the time tells nothing about any of them.
        """
        digest = _digest(key)
        found = None
        for name, known in self.digests.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found


def add_key(path: Path, name: str) -> str:
    """Make a key, write its digest into a file, and return it: it cannot be had again.

    Args:
        path: The file; made, for its owner only, where it is not there.
        name: Whose key it is.

    Raises:
        ServerError: If the name is taken or not right, or the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ServerError(f"{name!r} is no name for a key: letters, digits, '.', '_' and '-' make one")
    empty = not path.exists() or not path.stat().st_size
    if not empty:
        text = path.read_text(encoding="utf-8")
        if any(line.split()[:1] == [name] for line in text.splitlines()):
            raise ServerError(f"{str(path)!r} has a key {name!r} already; remove its line first")
        if not text.endswith("\n"):
            raise ServerError(f"the last line of {str(path)!r} is cut off; mend it first")
    key = f"wk-{secrets.token_urlsafe(32)}"
    line = f"{_HEADER if empty else ''}{name} sha256:{_digest(key)}\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise ServerError(f"the API keys {str(path)!r} cannot be written: {error}") from error
    return key


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
