"""The models that are installed on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from watchkeeper.models.catalog import CatalogEntry
from watchkeeper.models.errors import IntegrityError, ModelError
from watchkeeper.models.formats import check_folder, check_safetensors
from watchkeeper.models.home import models_folder
from watchkeeper.models.interface import Progress
from watchkeeper.models.manifest import (
    FORMAT,
    MANIFEST_NAME,
    Manifest,
    check_digests,
    check_sizes,
    read_manifest,
)


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model on disk, ready to be loaded.

    Attributes:
        folder: Everything that belongs to it.
        weights: ``config.json``, safetensors and tokenizer.
        int8: Its linear layers quantized to int8, where they were kept.
        digest: SHA-256 of the weights as published.
    """

    folder: Path
    weights: Path
    int8: Path | None
    digest: str


def model_folder(entry: CatalogEntry, home: Path | None = None) -> Path:
    """Where a model of the catalog or the Hub is installed (it need not be)."""
    return models_folder(home) / entry.id.replace("/", "--").replace("@", "--")


def is_installed(entry: CatalogEntry, home: Path | None = None) -> bool:
    """Whether a model is on this machine and looks whole."""
    if entry.folder is not None:
        return True
    folder = model_folder(entry, home)
    if not (folder / MANIFEST_NAME).is_file():
        return False
    try:
        check_installed(entry, home)
    except IntegrityError:
        return False
    return True


def check_installed(entry: CatalogEntry, home: Path | None = None) -> Manifest:
    """Check an installed model as cheaply as every start can afford: layout, publisher's hash, sizes.

    Raises:
        IntegrityError: If something is amiss.
    """
    folder = model_folder(entry, home)
    manifest = read_manifest(folder)
    if manifest.format != FORMAT:
        message = (
            f"{folder} has layout {manifest.format} and this version reads {FORMAT}: "
            f"run 'watchkeeper models pull {entry.id}'"
        )
        raise IntegrityError(message)
    if entry.file is not None and manifest.source_sha256 != entry.file.sha256:
        message = (
            f"{folder} was made from a file with SHA-256 {manifest.source_sha256} and the catalog names "
            f"{entry.file.sha256}: run 'watchkeeper models remove {entry.id}' and pull it again"
        )
        raise IntegrityError(message)
    check_sizes(folder, manifest)
    return manifest


def find_installed(entry: CatalogEntry, home: Path | None = None) -> InstalledModel:
    """Find a model on disk.

    Raises:
        ModelError: If it was not pulled.
        IntegrityError: If its files are damaged.
    """
    from watchkeeper.models.conversion import INT8, WEIGHTS

    if entry.folder is not None:
        check_folder(entry.folder)
        return InstalledModel(entry.folder, entry.folder, None, folder_digest(entry.folder))
    folder = model_folder(entry, home)
    if not folder.is_dir():
        message = f"the model {entry.id!r} is not on this machine: run 'watchkeeper models pull {entry.id}'"
        raise ModelError(message)
    manifest = check_installed(entry, home)
    int8 = folder / INT8
    return InstalledModel(folder, folder / WEIGHTS, int8 if int8.is_dir() else None, manifest.source_sha256)


def folder_digest(folder: Path) -> str:
    """Digest of a user's own safetensors: of the one file, or of the digests of several by name.

    Raises:
        IntegrityError: If there is none.
    """
    import hashlib

    from watchkeeper.models.manifest import digest_file

    digests = {path.name: digest_file(path).sha256 for path in sorted(folder.glob("*.safetensors"))}
    if not digests:
        message = f"{folder} holds no safetensors: give it model files of that format (pickles are refused)"
        raise IntegrityError(message)
    if len(digests) == 1:
        return next(iter(digests.values()))
    listing = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    return hashlib.sha256(listing.encode()).hexdigest()


def verify_installed(
    entry: CatalogEntry, home: Path | None = None, progress: Progress | None = None
) -> InstalledModel:
    """Hash every file of an installed model and compare with what was installed.

    A folder of the user's own has no digests to compare with: its files are checked for soundness.

    Raises:
        ModelError: If it was not pulled.
        IntegrityError: If a file is damaged.
    """
    if entry.folder is not None:
        check_folder(entry.folder)
    installed = find_installed(entry, home)
    if entry.folder is None:
        check_digests(installed.folder, read_manifest(installed.folder), progress)
        for path in sorted(installed.weights.glob("*.safetensors")):
            check_safetensors(path)
    return installed
