"""What an installed model consists of: the digest of every file, so that damage is found, not run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from watchkeeper.models.errors import IntegrityError

MANIFEST_NAME = "manifest.json"
FORMAT = 1
_BLOCK = 1 << 22


class FileDigest(BaseModel):
    """Size in bytes and SHA-256 of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str


class Manifest(BaseModel):
    """The content of an installed model.

    Attributes:
        format: Version of the layout; an older one is converted again.
        model: Catalog id.
        source_sha256: Digest of the weights as they were published.
        files: Digest of every file by its path relative to the model's folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    model: str
    source_sha256: str
    files: dict[str, FileDigest]


def digest_file(path: Path, progress: Callable[[int], None] | None = None) -> FileDigest:
    """Hash a file.

    Args:
        path: The file.
        progress: Told the number of bytes read since it was told last.
    """
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            size += len(block)
            if progress:
                progress(len(block))
    return FileDigest(size=size, sha256=digest.hexdigest())


def write_manifest(folder: Path, model: str, source_sha256: str) -> Manifest:
    """Hash everything in a model's folder and write the manifest beside it."""
    files = {str(path.relative_to(folder)): digest_file(path) for path in sorted(_files(folder))}
    manifest = Manifest(format=FORMAT, model=model, source_sha256=source_sha256, files=files)
    write_durably(folder / MANIFEST_NAME, manifest.model_dump_json(indent=1).encode())
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an installed model.

    Raises:
        IntegrityError: If it is missing, damaged or of another layout.
    """
    path = folder / MANIFEST_NAME
    try:
        return Manifest.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, ValidationError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        message = f"{path} {reason}: pull the model again"
        raise IntegrityError(message) from error


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Check that every file is there with its size: cheap enough for every start.

    Raises:
        IntegrityError: If one is missing or of another size.
    """
    for name, expected in manifest.files.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found is None:
            message = f"{path} is missing: remove the model and pull it again"
            raise IntegrityError(message)
        if found != expected.size:
            message = (
                f"{path} has {found:,} bytes instead of {expected.size:,}: remove the model and pull it again"
            )
            raise IntegrityError(message)


def check_digests(
    folder: Path, manifest: Manifest, progress: Callable[[str, int, int], None] | None = None
) -> None:
    """Check the SHA-256 of every file.

    Raises:
        IntegrityError: If a file is not what it was when it was installed.
    """
    check_sizes(folder, manifest)
    total = sum(entry.size for entry in manifest.files.values())
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress("verify", done, total)

    for name, expected in manifest.files.items():
        found = digest_file(folder / name, advance)
        if found.sha256 != expected.sha256:
            message = (
                f"{folder / name} has SHA-256 {found.sha256} instead of {expected.sha256}: "
                "remove the model and pull it again"
            )
            raise IntegrityError(message)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it is either absent (or as before) or complete, even after a power cut."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Force every file of a folder to disk."""
    for path in _files(folder):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to disk, which a rename needs to survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_NAME)
