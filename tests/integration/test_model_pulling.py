"""Installing a model: whole or not at all, once, and removable."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.model_wheels import WEIGHTS, make_entry, publish
from watchkeeper.models.catalog import CatalogEntry
from watchkeeper.models.errors import DownloadError, IntegrityError, ModelError
from watchkeeper.models.interface import Progress
from watchkeeper.models.manifest import write_manifest
from watchkeeper.models.pulling import pull, remove
from watchkeeper.models.store import find_installed, is_installed, model_folder, verify_installed

TINY = make_entry(parts=1)


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    publish(folder, parts=1)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("WATCHKEEPER_MODEL_FOLDER", raising=False)
    return folder


def keep_bytes(gguf: Path, folder: Path, entry: CatalogEntry, progress: Progress | None) -> None:
    """Stand in for the conversion, which needs a real model: keep the bytes as they are."""
    (folder / "weights").mkdir()
    shutil.copy(gguf, folder / "weights" / "model.data")
    assert entry.file is not None
    write_manifest(folder, entry.id, entry.file.sha256)


def test_a_pulled_model_is_found_whole(tmp_path: Path) -> None:
    installed = pull(TINY, home=tmp_path, convert=keep_bytes)

    assert (installed.weights / "model.data").read_bytes() == WEIGHTS
    assert verify_installed(TINY, tmp_path) == installed
    assert (installed.folder / "source" / "tiny.gguf").read_bytes() == WEIGHTS


def test_a_home_that_a_pull_makes_is_nobody_else_s(tmp_path: Path) -> None:
    home = tmp_path / "share" / "watchkeeper"
    pull(TINY, home=home, convert=keep_bytes)
    assert home.stat().st_mode & 0o077 == 0


def test_a_second_pull_does_nothing(tmp_path: Path, index: Path) -> None:
    first = pull(TINY, home=tmp_path, convert=keep_bytes)
    shutil.rmtree(index)

    assert pull(TINY, home=tmp_path, convert=keep_bytes) == first


def test_two_pulls_at_once_convert_once(tmp_path: Path) -> None:
    converted: list[Path] = []
    waited: list[str] = []

    def slowly(gguf: Path, folder: Path, entry: CatalogEntry, progress: Progress | None) -> None:
        time.sleep(0.5)
        keep_bytes(gguf, folder, entry, progress)
        converted.append(folder)

    threads = [
        threading.Thread(
            target=pull,
            args=(TINY,),
            kwargs={
                "home": tmp_path,
                "convert": slowly,
                "progress": lambda stage, *_: waited.append(stage) if stage.startswith("wait") else None,
            },
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(converted) == 1
    assert len(waited) == 1
    assert is_installed(TINY, tmp_path)


def test_a_conversion_that_dies_leaves_nothing_installed_and_nothing_to_fetch_again(
    tmp_path: Path, index: Path
) -> None:
    def dying(gguf: Path, folder: Path, entry: CatalogEntry, progress: Progress | None) -> None:
        (folder / "weights").mkdir()
        (folder / "weights" / "model.data").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(TINY, home=tmp_path, convert=dying)
    assert not is_installed(TINY, tmp_path)
    with pytest.raises(ModelError, match="models pull tiny-model"):
        find_installed(TINY, tmp_path)
    shutil.rmtree(index)

    pull(TINY, home=tmp_path, convert=keep_bytes)

    verify_installed(TINY, tmp_path)


def test_a_damaged_model_is_pulled_again_from_the_file_that_was_kept(tmp_path: Path, index: Path) -> None:
    installed = pull(TINY, home=tmp_path, convert=keep_bytes)
    (installed.weights / "model.data").write_bytes(WEIGHTS[:-1])
    shutil.rmtree(index)
    with pytest.raises(IntegrityError, match=r"model\.data has 30,007 bytes instead of 30,008"):
        find_installed(TINY, tmp_path)

    pull(TINY, home=tmp_path, convert=keep_bytes)

    verify_installed(TINY, tmp_path)


def test_a_changed_byte_is_found_by_verify(tmp_path: Path) -> None:
    installed = pull(TINY, home=tmp_path, convert=keep_bytes)
    (installed.weights / "model.data").write_bytes(WEIGHTS[:-1] + b"!")
    told: list[int] = []

    with pytest.raises(IntegrityError, match=r"model\.data has SHA-256"):
        verify_installed(TINY, tmp_path, lambda _, done, total: told.append(done))

    assert told[-1] == len(WEIGHTS)


def test_a_damaged_manifest_is_no_installed_model(tmp_path: Path) -> None:
    installed = pull(TINY, home=tmp_path, convert=keep_bytes)

    for damaged in (b"", b"{}", b"not json", b'{"format": 1'):
        (installed.folder / "manifest.json").write_bytes(damaged)
        assert not is_installed(TINY, tmp_path)
        with pytest.raises(IntegrityError, match="pull the model again"):
            find_installed(TINY, tmp_path)


def test_a_disk_without_room_is_noticed_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**6))

    with pytest.raises(DownloadError, match=r"tiny-model needs 0\.2 GB.*0\.0 GB are free"):
        pull(TINY, home=tmp_path, convert=keep_bytes)

    assert not list((tmp_path / "models").rglob("*.whl"))


def test_a_home_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")

    with pytest.raises(ModelError, match=f"{tmp_path / 'home'}.*WATCHKEEPER_HOME"):
        pull(TINY, home=tmp_path / "home", convert=keep_bytes)


def test_removing_frees_everything_and_says_how_much(tmp_path: Path) -> None:
    pull(TINY, home=tmp_path, convert=keep_bytes)

    freed = remove(TINY, home=tmp_path)

    assert freed > 2 * len(WEIGHTS)
    assert not model_folder(TINY, tmp_path).exists()
    with pytest.raises(ModelError, match="nothing to remove"):
        remove(TINY, home=tmp_path)


def test_removing_takes_what_an_unfinished_pull_left(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="part2"):
        pull(make_entry(parts=2), home=tmp_path, convert=keep_bytes)

    assert remove(TINY, home=tmp_path) > 0

    assert not list((tmp_path / "models").rglob("*.whl"))


def test_a_folder_of_the_users_own_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(ModelError, match="not ours to remove"):
        remove(str(tmp_path))

    assert (tmp_path / "config.json").exists()


def test_a_file_in_a_local_folder_is_not_copied(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "tiny.gguf").write_bytes(WEIGHTS)

    installed = pull(replace(TINY, index_parts=()), folder=folder, home=tmp_path / "home", convert=keep_bytes)

    assert (folder / "tiny.gguf").exists()
    assert not (installed.folder / "source").exists()
