"""The adapters of a model: those that come with Watchkeeper, and those that are installed on this machine."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from watchkeeper.models.adapter_files import CONFIG_NAME, WEIGHTS_NAME, Adapter, read_adapter
from watchkeeper.models.catalog import CatalogEntry
from watchkeeper.models.errors import AdapterError
from watchkeeper.models.home import home_folder
from watchkeeper.models.manifest import sync_folder, sync_tree
from watchkeeper.models.shipped_adapters import NAME, adapters_in, is_shipped, shipped_adapters
from watchkeeper.models.store import find_installed, model_folder

CARD_NAME = "README.md"
"""What an adapter is: its data, what it is worth, and its limits."""

EVALUATION_NAME = "evaluation.json"
"""What it was measured to be worth."""


def adapters_folder(entry: CatalogEntry, home: Path | None = None) -> Path:
    """Where the adapters of a model lie; apart from the model, which can be pulled again."""
    root = home if home is not None else home_folder()
    return root / "adapters" / model_folder(entry, home).name


def installed_adapters(entry: CatalogEntry, home: Path | None = None) -> dict[str, Path]:
    """The folders of a model's adapters by name: those that come with Watchkeeper, and a site's own."""
    return shipped_adapters(entry.id) | adapters_in(adapters_folder(entry, home))


def check_name(name: str) -> None:
    """Refuse what is no name for an adapter.

    Raises:
        AdapterError: If it is none.
    """
    if not NAME.fullmatch(name):
        message = f"{name!r} is no name for an adapter: take letters, digits, '.', '_' and '-', at most 63"
        raise AdapterError(message)


def adapter_folder(entry: CatalogEntry, name: str, home: Path | None = None) -> Path:
    """The folder of an installed adapter.

    Raises:
        AdapterError: If there is none of that name.
    """
    found = installed_adapters(entry, home)
    if name not in found:
        known = ", ".join(found) or "none"
        raise AdapterError(f"{entry.id!r} has no adapter {name!r} (it has: {known})")
    return found[name]


def check_adapter(entry: CatalogEntry, name: str, folder: Path, home: Path | None = None) -> Adapter:
    """Read an adapter and check it against a model, without loading the model.

    Raises:
        AdapterError: If it does not fit.
        ModelError: If the model is not on this machine.
    """
    from watchkeeper.models.int8_model import empty_model

    return read_adapter(name, folder, empty_model(find_installed(entry, home).weights))


def add_adapter(entry: CatalogEntry, name: str, folder: Path, home: Path | None = None) -> Adapter:
    """Check an adapter against a model and keep a copy of it.

    Args:
        entry: The model.
        name: What requests will call it.
        folder: What peft's ``save_pretrained`` wrote.
        home: Home to keep it in; the default one where ``None``.

    Raises:
        AdapterError: If it does not fit, the name is none, or is taken, or the copy cannot be written.
        ModelError: If the model is not on this machine.
    """
    check_name(name)
    target = adapters_folder(entry, home) / name
    taken = f"{entry.id!r} has an adapter {name!r} already: remove it first, or take another name"
    if name in installed_adapters(entry, home):
        raise AdapterError(taken)
    check_adapter(entry, name, folder, home)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=target.parent, ignore_cleanup_errors=True) as room:
            copy = Path(room) / name
            copy.mkdir()
            for part in (CONFIG_NAME, WEIGHTS_NAME):
                shutil.copyfile(folder / part, copy / part)
            for part in (CARD_NAME, EVALUATION_NAME):
                if (folder / part).is_file():
                    shutil.copyfile(folder / part, copy / part)
            # What was checked may have changed since: what is kept is what counts.
            found = check_adapter(entry, name, copy, home)
            sync_tree(copy)
            copy.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        if target.exists():
            raise AdapterError(taken) from error
        raise AdapterError(f"{target} cannot be written: {error.strerror or error}") from error
    return found


def remove_adapter(entry: CatalogEntry, name: str, home: Path | None = None) -> Path:
    """Remove an installed adapter.

    Returns:
        The folder that is gone.

    Raises:
        AdapterError: If there is none of that name, or it cannot be removed.
    """
    folder = adapter_folder(entry, name, home)
    if is_shipped(folder):
        raise AdapterError(f'adapter {name!r} comes with Watchkeeper: do without it by `adapter: ""`')
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise AdapterError(f"{folder} cannot be removed: {error.strerror or error}") from error
    return folder
