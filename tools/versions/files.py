"""The files of a version: copied whole or not at all, found by their digest, and checked before use."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from pathlib import Path

from watchkeeper.tools.durable import private_folder, sync_folder
from watchkeeper.tools.errors import VersionError
from watchkeeper.tools.evidence import digest_json

_BLOCK = 1 << 20
_PART = ".new-"


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path in it.

    Raises:
        VersionError: If it holds anything but files and folders, or cannot be read.
    """
    found: dict[str, str] = {}
    try:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise VersionError(f"{str(path)!r} is neither a file nor a folder: a version holds no others")
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = _sha256(path)
    except OSError as error:
        raise VersionError(f"{str(folder)!r} cannot be read: {error.strerror}") from error
    return found


def digest_of(files: dict[str, str]) -> str:
    """Return the digest of a version with these files."""
    return digest_json(dict(files))


def keep_files(source: Path, home: Path) -> tuple[Path, dict[str, str]]:
    """Copy a folder to where its digest says; what is there already is left as it is.

    Whoever calls this holds the lock of the versions: parts that a killed process left are removed.

    Args:
        source: The folder.
        home: Folder of all versions of this predictor.

    Returns:
        Where the files are, and their digests.

    Raises:
        VersionError: If the source holds anything but files and folders, or what is there was changed.
    """
    private_folder(home)
    for left in home.glob(f"{_PART}*"):
        shutil.rmtree(left, ignore_errors=True)
    part = home / f"{_PART}{uuid.uuid4().hex}"
    try:
        file_digests(source)
        shutil.copytree(source, part)
        files = file_digests(part)
        target = home / digest_of(files)
        if target.exists():
            check_files(target, files)
            return target, files
        _sync_tree(part)
        part.rename(target)
        sync_folder(home)
        return target, files
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_files(folder: Path, files: dict[str, str]) -> None:
    """Make sure that a folder holds these files and no others.

    Raises:
        VersionError: Naming the first file that is not as it was kept.
    """
    found = file_digests(folder)
    for path in sorted(files.keys() | found.keys()):
        if path not in found:
            raise VersionError(f"{str(folder / path)!r} is missing: bring it back from a backup")
        if files.get(path) != found[path]:
            raise VersionError(
                f"{str(folder / path)!r} is not as it was kept: bring it back from a backup, or register "
                "the predictor anew"
            )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _sync_tree(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            sync_folder(path)
        else:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
