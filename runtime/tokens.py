"""Tokens of users: shown once, kept as salted scrypt hashes, compared in constant time (RFC 7914)."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

PREFIX = "wk"
_SHAPE = re.compile(r"wk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_COST, _BLOCK, _PARALLEL, _LENGTH = 2**14, 8, 1, 32
"""scrypt's parameters: 16 MiB and some 50 ms a guess."""


class StoredToken(BaseModel):
    """What is kept of a token.

    Attributes:
        id: The part by which it is found; not secret.
        salt: 16 random bytes, in hexadecimal.
        hash: scrypt of the secret part, in hexadecimal.
        created: When it was made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: AwareDatetime

    def fits(self, secret: str) -> bool:
        """Whether this is its secret part; takes as long whatever the answer is."""
        return hmac.compare_digest(_hash(secret, bytes.fromhex(self.salt)), self.hash)


def new_token(at: datetime) -> tuple[str, StoredToken]:
    """Make a token.

    Returns:
        The token as its user must keep it, and what is kept of it here.
    """
    name, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_bytes(16)
    return (
        f"{PREFIX}_{name}_{secret}",
        StoredToken(id=name, salt=salt.hex(), hash=_hash(secret, salt), created=at),
    )


def split_token(token: str) -> tuple[str, str] | None:
    """Return the id and the secret part of a token, or None if it is none."""
    match = _SHAPE.fullmatch(token.strip())
    return None if match is None else (match[1], match[2])


def spend_as_much(secret: str) -> None:
    """Compute a hash for nobody, so that an unknown token takes as long as a wrong one."""
    _hash(secret, bytes(16))


def _hash(secret: str, salt: bytes) -> str:
    return hashlib.scrypt(
        secret.encode(), salt=salt, n=_COST, r=_BLOCK, p=_PARALLEL, dklen=_LENGTH, maxmem=2**26
    ).hex()
