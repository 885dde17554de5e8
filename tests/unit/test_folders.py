"""Whoever may write in a folder cannot lead a more powerful process out of it by a link."""

import errno
import os
from pathlib import Path

import pytest

from watchkeeper.tools.folders import LedAstrayError, entered, opened, path_of

STRANGER = 64123
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="links of another user can be made by root alone")


def link(path: Path, leads_to: str | Path, owner: int | None = None) -> None:
    path.symlink_to(leads_to)
    if owner is not None:
        os.chown(path, owner, owner, follow_symlinks=False)


def content(path: Path) -> bytes:
    with opened(path, os.O_RDONLY) as handle:
        return os.read(handle, 100)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.log").write_text(name)
    return tmp_path


@as_root
@pytest.mark.parametrize("relative", [True, False])
def test_a_link_of_another_user_is_followed_to_that_users_folders_alone(site: Path, relative: bool) -> None:
    os.chown(site / "theirs", STRANGER, STRANGER)
    for name in ("theirs", "ours"):
        link(site / f"to-{name}", f"../{site.name}/{name}" if relative else site / name, STRANGER)
    assert content(site / "to-theirs" / "a.log") == b"theirs"
    with pytest.raises(LedAstrayError, match="to-ours' of another user leads to a folder that is not"):
        content(site / "to-ours" / "a.log")


@as_root
def test_a_link_to_a_link_of_another_user_is_noticed(site: Path) -> None:
    link(site / "inner", "ours", STRANGER)
    link(site / "outer", "inner")
    with pytest.raises(LedAstrayError):
        content(site / "outer" / "a.log")


def test_links_of_ones_own_are_followed(site: Path) -> None:
    link(site / "one", "two/..")
    link(site / "two", site / "ours")
    assert content(site / "one" / "theirs" / ".." / "ours" / "a.log") == b"ours"


def test_a_file_that_is_itself_a_link_is_not_opened(site: Path) -> None:
    link(site / "ours" / "b.log", "a.log")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        content(site / "ours" / "b.log")


def test_links_in_a_circle_and_files_in_the_way_are_refused(site: Path) -> None:
    link(site / "round", "round")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        content(site / "round" / "a.log")
    with pytest.raises(NotADirectoryError):
        content(site / "ours" / "a.log" / "b.log")
    with pytest.raises(FileNotFoundError):
        content(site / "none" / "a.log")


def test_a_folder_that_was_entered_stays_the_same_whatever_takes_its_name(site: Path) -> None:
    with entered(site / "ours") as folder:
        (site / "ours").rename(site / "before")
        link(site / "ours", "theirs")
        handle = os.open("a.log", os.O_RDONLY, dir_fd=folder)
        assert os.read(handle, 100) == b"ours"
        assert path_of(handle) == str(site / "before" / "a.log")
        os.close(handle)
