"""A home to begin with: nobody else can look into it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from watchkeeper.cli import build_app


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def init() -> str:
    return CliRunner().invoke(build_app(), ["init"], catch_exceptions=False).stdout


def test_a_home_that_was_open_to_others_is_closed_and_that_is_said(home: Path) -> None:
    home.mkdir()
    home.chmod(0o755)
    assert f"closed {home} to others (its mode was 755)" in init()
    assert home.stat().st_mode & 0o777 == 0o700
    assert "closed" not in init()


def test_a_new_home_is_private_without_a_word(home: Path) -> None:
    assert "closed" not in init()
    assert home.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_holds_something_else_stays_as_open_as_it_is(home: Path) -> None:
    home.mkdir()
    home.chmod(0o755)
    (home / "other").touch()
    assert "closed" not in init()
    assert home.stat().st_mode & 0o777 == 0o755
