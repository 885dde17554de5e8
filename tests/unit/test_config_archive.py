"""The last good versions of configuration files are kept, bounded, private, and told when damaged."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from watchkeeper.tools.archive import MAX_CONFIG_BYTES, ConfigArchive
from watchkeeper.tools.errors import CollectError

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


@pytest.fixture
def archive(tmp_path: Path) -> ConfigArchive:
    return ConfigArchive(tmp_path / "state" / "configs", limit=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "app.ini"
    path.write_text("a = 1\n")
    path.chmod(0o640)
    return path


def test_nothing_is_known_of_a_file_that_was_never_recorded(archive: ConfigArchive, path: Path) -> None:
    assert archive.last_good(path) is None
    assert archive.versions(path) == ()


def test_the_newest_version_comes_first_with_its_content_and_permissions(
    archive: ConfigArchive, path: Path
) -> None:
    archive.record(path, now=NOW)
    path.write_bytes(b"a = 2\n\xff\x00")
    version = archive.record(path, now=NOW + timedelta(hours=1))
    assert archive.last_good(path) == version
    assert archive.content(version) == b"a = 2\n\xff\x00"
    assert version.mode == 0o640
    assert [archive.content(v) for v in archive.versions(path)][1] == b"a = 1\n"


def test_recording_the_same_content_again_changes_nothing(archive: ConfigArchive, path: Path) -> None:
    first = archive.record(path, now=NOW)
    assert archive.record(path, now=NOW + timedelta(days=1)) == first
    assert len(archive.versions(path)) == 1


def test_a_version_that_is_good_again_moves_to_the_front_and_stands_there_once(
    archive: ConfigArchive, path: Path
) -> None:
    for text in ("1", "2", "1"):
        path.write_text(text)
        archive.record(path, now=NOW)
    assert [archive.content(v) for v in archive.versions(path)] == [b"1", b"2"]


def test_history_is_bounded_and_forgotten_contents_are_removed_unless_another_file_has_them(
    archive: ConfigArchive, path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.ini"
    other.write_text("0")
    kept = archive.record(other, now=NOW)
    for number in range(6):
        path.write_text(str(number))
        archive.record(path, now=NOW)
    assert [archive.content(v) for v in archive.versions(path)] == [b"5", b"4", b"3"]
    assert archive.content(kept) == b"0"
    assert len(list((tmp_path / "state" / "configs" / "objects").iterdir())) == 4


def test_nobody_else_may_read_the_archive(archive: ConfigArchive, path: Path, tmp_path: Path) -> None:
    path.chmod(0o666)
    archive.record(path, now=NOW)
    folder = tmp_path / "state" / "configs"
    assert folder.stat().st_mode & 0o077 == 0
    assert all(p.stat().st_mode & 0o077 == 0 for p in folder.rglob("*"))


@pytest.mark.parametrize("what", ["missing", "link", "folder", "large"])
def test_what_is_no_plain_small_file_is_not_recorded(archive: ConfigArchive, path: Path, what: str) -> None:
    path.unlink()
    if what == "link":
        path.symlink_to("/etc/hostname")
    elif what == "folder":
        path.mkdir()
    elif what == "large":
        path.write_bytes(b"x" * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(CollectError, match=str(path)):
        archive.record(path, now=NOW)


def test_damage_is_told_and_never_returned_as_content(
    archive: ConfigArchive, path: Path, tmp_path: Path
) -> None:
    version = archive.record(path, now=NOW)
    (tmp_path / "state" / "configs" / "objects" / version.digest).write_text("a = 9\n")
    with pytest.raises(CollectError, match="damaged"):
        archive.content(version)
    (index,) = (tmp_path / "state" / "configs" / "index").iterdir()
    index.write_text('{"path": ')
    with pytest.raises(CollectError, match="damaged; move it away"):
        archive.last_good(path)


def _record_many(folder: Path, path: Path) -> None:
    archive = ConfigArchive(folder)
    for _ in range(10):
        archive.record(path, now=NOW)


def test_several_processes_may_record_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    paths = [tmp_path / f"{number}.ini" for number in range(3)]
    for path in paths:
        path.write_text(path.name)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_record_many, args=(folder, path)) for path in paths]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    archive = ConfigArchive(folder)
    versions = [archive.last_good(path) for path in paths]
    assert [archive.content(v) for v in versions if v is not None] == [p.name.encode() for p in paths]


def test_damage_elsewhere_keeps_no_file_from_being_recorded(
    archive: ConfigArchive, path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.ini"
    other.write_text("0")
    archive.record(other, now=NOW)
    index = next((tmp_path / "state" / "configs" / "index").iterdir())
    index.write_text("{")
    for number in range(6):
        path.write_text(str(number))
        archive.record(path, now=NOW)
    assert archive.content(archive.versions(path)[0]) == b"5"
