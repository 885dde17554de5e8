"""The key that signs checkpoints of the audit log."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from watchkeeper.runtime.errors import AuditError
from watchkeeper.tools.durable import leave_to_owner, make_kept_folder

PRIVATE = "audit.key"
PUBLIC = "audit.pub"


def create_keys(folder: Path) -> Ed25519PrivateKey:
    """Make a key pair; the private half is readable by its owner only.

    Raises:
        AuditError: If it cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        make_kept_folder(folder)
        for name, content, mode in ((PUBLIC, public, 0o644), (PRIVATE, private, 0o600)):
            # Written aside and renamed: a full disk or a crash leaves no half of a key.
            part = folder / f"{name}.part"
            part.unlink(missing_ok=True)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            try:
                leave_to_owner(descriptor, folder)
                os.write(descriptor, content)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            part.replace(folder / name)
    except OSError as error:
        raise AuditError(
            f"audit key in {str(folder)!r} cannot be written: {error.strerror}; "
            "free space there or check its permissions"
        ) from error
    return key


def load_private(folder: Path) -> Ed25519PrivateKey:
    """Read the signing key.

    Raises:
        AuditError: If it is missing, damaged, or readable by others.
    """
    path = folder / PRIVATE
    try:
        if path.stat().st_mode & 0o077:
            raise AuditError(f"audit key {str(path)!r} can be read by others: run chmod 600 on it")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise AuditError(
            f"audit key {str(path)!r} cannot be read: {error.strerror}; restore it from a backup, or move "
            "the audit folder aside to start a new log with a new key"
        ) from error
    except ValueError as error:
        raise AuditError(f"audit key {str(path)!r} is damaged: restore it from a backup") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise AuditError(f"audit key {str(path)!r} is not an Ed25519 key: restore it from a backup")
    return key


def load_public(folder: Path) -> Ed25519PublicKey:
    """Read the key that checks signatures.

    Raises:
        AuditError: If it is missing or damaged.
    """
    path = folder / PUBLIC
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise AuditError(
            f"audit key {str(path)!r} cannot be read: {error.strerror}; restore it from a backup"
        ) from error
    except ValueError as error:
        raise AuditError(f"audit key {str(path)!r} is damaged: restore it from a backup") from error
    if not isinstance(key, Ed25519PublicKey):
        raise AuditError(f"audit key {str(path)!r} is not an Ed25519 key: restore it from a backup")
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the public key, to be compared with a copy that was kept elsewhere."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()


def is_signed(key: Ed25519PublicKey, signature: str, content: bytes) -> bool:
    """Whether a signature is this key's for this content.

    It must be written as this project writes it (lower-case hexadecimal, nothing between):
    another spelling of the same bytes is an edit.
    """
    try:
        raw = bytes.fromhex(signature)
        key.verify(raw, content)
    except (InvalidSignature, ValueError):
        return False
    return raw.hex() == signature
