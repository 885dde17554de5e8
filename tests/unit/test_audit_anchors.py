"""A comparison with anchors never passes for want of anchors, and a restore is named where it is why."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.lamp import folder_in_memory
from watchkeeper import Settings
from watchkeeper.cli import build_app
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.audit_anchor import ANCHORS, anchor
from watchkeeper.runtime.audit_prune import prune_log
from watchkeeper.runtime.backup import back_up
from watchkeeper.runtime.errors import AuditError
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.restoring import restore


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with folder_in_memory() as made:
        monkeypatch.setenv("WATCHKEEPER_HOME", str(made / "home"))
        monkeypatch.delenv("WATCHKEEPER_CONFIG", raising=False)
        yield made


@pytest.fixture
def log(folder: Path) -> AuditLog:
    Journal(folder / "home").store.close()
    log = AuditLog(folder / "home")
    for kind in ("asked", "decided", "done"):
        log.append(kind, {})
    return log


def audit(*arguments: str) -> Result:
    return CliRunner().invoke(build_app(), ["audit", *arguments])


@pytest.mark.parametrize("there", [False, True])
def test_without_anchors_nothing_is_called_sound(log: AuditLog, folder: Path, there: bool) -> None:
    if there:
        (folder / "elsewhere").mkdir()
    ended = audit("verify", "--anchor", str(folder / "elsewhere"))
    assert (ended.exit_code, "sound" in ended.output) == (2, False)
    said = " ".join(ended.stderr.split())
    assert f"no anchors in '{folder / 'elsewhere'}'" in said
    assert ("holds none" if there else "is not there") in said
    assert "`watchkeeper audit anchor`" in said


def test_a_comparison_says_with_how_many_anchors(log: AuditLog, folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    anchor(log, elsewhere)
    assert f"compared with 1 anchor in {elsewhere}" in audit("verify", "--anchor", str(elsewhere)).output
    log.append("more", {})
    anchor(log, elsewhere)
    ended = audit("verify", "--anchor", str(elsewhere))
    assert (ended.exit_code, f"compared with 2 anchors in {elsewhere}" in ended.output) == (0, True)
    assert json.loads(audit("verify", "--anchor", str(elsewhere), "--json").stdout)["anchors"] == 2
    assert "compared" not in audit("verify").output


def test_the_first_anchor_of_a_folder_says_that_it_was_compared_with_nothing(
    log: AuditLog, folder: Path
) -> None:
    first = audit("anchor", str(folder / "elsewhere"))
    assert first.exit_code == 0
    assert f"NO ANCHORS WERE IN {folder / 'elsewhere'}: this is the first" in first.stderr
    assert "NO ANCHORS" not in audit("anchor", str(folder / "elsewhere")).output


def test_an_anchor_that_a_crash_cut_short_is_taken_for_none_and_written_over(
    log: AuditLog, folder: Path
) -> None:
    elsewhere = folder / "elsewhere"
    anchor(log, elsewhere)
    log.append("more", {})
    with (elsewhere / "anchors.jsonl").open("ab") as file:
        file.write(b'{"count": 4, "he')
    assert anchor(log, elsewhere).fresh
    assert not anchor(log, elsewhere).fresh
    assert len((elsewhere / "anchors.jsonl").read_bytes().splitlines()) == 2


def test_an_anchor_that_a_full_disk_cuts_short_is_no_anchor(
    log: AuditLog, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = folder / "elsewhere"
    anchor(log, elsewhere)
    before = (elsewhere / "anchors.jsonl").read_bytes()
    log.append("more", {})
    real, left = os.write, [5]

    def write(descriptor: int, data: bytes | memoryview) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(descriptor, data[: left[0]])
        left[0] = 0
        return done

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(AuditError, match="cannot be written: No space left"):
            anchor(log, elsewhere)
    assert (elsewhere / "anchors.jsonl").read_bytes() == before
    assert anchor(log, elsewhere).fresh


def test_after_everything_that_was_anchored_was_pruned_the_way_on_is_named(
    log: AuditLog, folder: Path
) -> None:
    elsewhere = folder / "elsewhere"
    anchor(log, elsewhere)
    for _ in range(3):
        log.append("later", {})
    before = list(log.entries())[4].at
    prune_log(log, before=before, export=folder / "old.jsonl", by="ann")
    with pytest.raises(AuditError) as caught:
        anchor(log, elsewhere)
    said = str(caught.value)
    assert "entries up to 4 were exported and dropped" in said
    assert "by 'ann'" in said
    assert "`watchkeeper audit anchor NEW_FOLDER`" in said
    assert anchor(log, folder / "new").begun


def put_back(log: AuditLog, folder: Path, *, with_key: bool) -> str:
    """Anchor, back up, go on, anchor again, and restore; returns what the restore printed."""
    anchor(log, folder / "elsewhere")
    settings = Settings(home=folder / "home")
    made = back_up(settings, folder / "a.tar.gz", by="ann", version="0", with_key=with_key)
    log.append("later", {})
    log.append("later", {})
    log.append("later", {})
    anchor(log, folder / "elsewhere")
    if not with_key:
        (folder / "home" / "keys" / "audit.key").unlink()
    return CliRunner().invoke(build_app(), ["restore", str(made.path), "--replace"]).output


@pytest.mark.parametrize("with_key", [True, False])
def test_after_a_restore_the_way_on_is_named(log: AuditLog, folder: Path, with_key: bool) -> None:
    elsewhere = folder / "elsewhere"
    assert "watchkeeper audit anchor NEW_FOLDER" in put_back(log, folder, with_key=with_key)
    refused = audit("anchor", str(elsewhere))
    assert refused.exit_code == 2
    said = " ".join(refused.stderr.split())
    assert "tells of a restore of an older backup" in said
    assert "`watchkeeper audit anchor NEW_FOLDER`" in said
    compared = audit("verify", "--anchor", str(elsewhere))
    assert (compared.exit_code, "tells of a restore" in compared.output) == (1, True)
    assert audit("anchor", str(folder / "new")).exit_code == 0
    assert audit("verify", "--anchor", str(folder / "new")).exit_code == 0


def spoil_an_anchor(folder: Path) -> None:
    path = folder / "elsewhere" / ANCHORS
    first, _, rest = path.read_text().partition("\n")
    path.write_text(first.replace('"count":3', '"count":2') + "\n" + rest)


def rewrite_what_was_before(folder: Path) -> None:
    """Forge a whole log with the key, in which a restore is told of after what was anchored first."""
    log = AuditLog(folder / "home")
    for path in log.folder.iterdir():
        path.unlink()
    for kind in ("asked", "refused", "nothing", "home-restored", "halted"):
        log.append(kind, {})


@pytest.mark.parametrize("harm", [spoil_an_anchor, rewrite_what_was_before])
def test_a_restore_explains_no_other_change(
    log: AuditLog, folder: Path, harm: Callable[[Path], None]
) -> None:
    put_back(log, folder, with_key=True)
    harm(folder)
    with pytest.raises(AuditError) as refused:
        anchor(AuditLog(folder / "home"), folder / "elsewhere")
    assert "restore" not in str(refused.value)


def test_a_restore_explains_no_anchor_that_was_made_after_it(log: AuditLog, folder: Path) -> None:
    made = back_up(Settings(home=folder / "home"), folder / "a.tar.gz", by="ann", version="0", with_key=True)
    ago = datetime.now(UTC) - timedelta(hours=1)
    restore(made.path, folder / "home", by="ann", replace=True, now=lambda: ago)
    log.append("done", {})
    anchor(log, folder / "elsewhere")
    lines = log.path.read_bytes().splitlines(keepends=True)
    checkpoints = (log.folder / "checkpoints.jsonl").read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(lines[:-1]))
    (log.folder / "checkpoints.jsonl").write_bytes(b"".join(checkpoints[:-1]))
    assert log.verify().ok
    with pytest.raises(AuditError, match="were anchored, the log ends") as refused:
        anchor(log, folder / "elsewhere")
    assert "restore" not in str(refused.value)
