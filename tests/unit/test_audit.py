"""The audit log shows every change that was made to it after it was written."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.audit_keys import create_keys
from watchkeeper.runtime.audit_records import Checkpoint
from watchkeeper.runtime.errors import AuditError

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    log = AuditLog(tmp_path, now=lambda: NOON)
    for number in range(6):
        log.append("step", {"number": number, "text": f"entry {number}"})
    return log


def rewrite(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def found(log: AuditLog) -> str:
    report = log.verify()
    assert not report.ok
    return "; ".join(f"{p.file}:{p.line} {p.what}" for p in report.problems)


def test_a_log_that_nobody_touched_is_sound(log: AuditLog) -> None:
    report = log.verify()
    assert (report.ok, report.entries, report.signed, report.problems, report.notes) == (True, 6, 6, (), ())
    assert [e.data["number"] for e in log.entries()] == list(range(6))  # type: ignore[index,call-overload]


def test_no_log_yet_is_no_problem(tmp_path: Path) -> None:
    assert AuditLog(tmp_path).verify().ok
    assert not (tmp_path / "audit").exists()


def test_a_log_that_was_taken_away_whole_is_missed(log: AuditLog) -> None:
    shutil.rmtree(log.folder)
    assert "audit.jsonl:0 is not there, and the key that signs it is" in found(log)


def test_lines_are_canonical_and_chained(log: AuditLog) -> None:
    lines = log.path.read_bytes().splitlines()
    for line in lines:
        assert rfc8785.dumps(json.loads(line)) == line
    for before, after in pairwise(lines):
        assert json.loads(after)["previous"] == hashlib.sha256(before).hexdigest()


def test_an_edit_is_found(log: AuditLog) -> None:
    rewrite(log.path, lambda lines: [line.replace(b"entry 2", b"entry X") for line in lines])
    assert "audit.jsonl:4 does not continue the line before" in found(log)
    assert "audit.jsonl:3 entry 3 is not the one that was signed" in found(log)


def test_an_edit_of_the_last_entry_is_found_and_stops_the_log(log: AuditLog) -> None:
    rewrite(log.path, lambda lines: [line.replace(b"entry 5", b"entry X") for line in lines])
    assert "entry 6 is not the one that was signed" in found(log)
    with pytest.raises(AuditError, match=r"entry 6 .* was edited after it was signed"):
        log.append("step", {})


def test_a_removed_entry_is_found(log: AuditLog) -> None:
    rewrite(log.path, lambda lines: lines[:2] + lines[3:])
    assert "audit.jsonl:3 has number 4 where 3 belongs" in found(log)
    assert "the tail was cut: 6 entries were signed, 5 are there" in found(log)


def test_reordered_entries_are_found(log: AuditLog) -> None:
    rewrite(log.path, lambda lines: [lines[0], lines[2], lines[1], *lines[3:]])
    assert "audit.jsonl:2 has number 3 where 2 belongs" in found(log)


def test_an_added_entry_is_found(log: AuditLog) -> None:
    rewrite(log.path, lambda lines: [*lines[:3], lines[2], *lines[3:]])
    assert "audit.jsonl:4 has number 3 where 4 belongs" in found(log)


@pytest.mark.parametrize("left", [5, 1, 0])
def test_a_cut_tail_is_found_and_stops_the_log(log: AuditLog, left: int) -> None:
    rewrite(log.path, lambda lines: lines[:left])
    assert f"the tail was cut: 6 entries were signed, {left} are there" in found(log)
    with pytest.raises(AuditError, match=f"was cut: 6 entries were signed, {left} are there"):
        log.append("step", {})


def test_a_removed_log_is_found(log: AuditLog) -> None:
    log.path.unlink()
    assert "the tail was cut" in found(log)
    with pytest.raises(AuditError, match="was cut"):
        log.append("step", {})


def test_a_log_that_was_rewritten_from_some_entry_on_is_found(log: AuditLog, tmp_path: Path) -> None:
    forged = AuditLog(tmp_path / "forged", now=lambda: NOON)
    for number in range(6):
        forged.append(
            "step", {"number": number, "text": "nothing to see" if number == 3 else f"entry {number}"}
        )
    assert forged.verify().ok
    log.path.write_bytes(forged.path.read_bytes())
    assert "entry 4 is not the one that was signed" in found(log)
    log.checkpoints_path.write_bytes(forged.checkpoints_path.read_bytes())
    assert "its signature is not of this site's key" in found(log)


def test_removed_checkpoints_are_found(log: AuditLog) -> None:
    log.checkpoints_path.unlink()
    assert "holds no valid checkpoint" in found(log)
    with pytest.raises(AuditError, match="was removed"):
        log.append("step", {})


def test_an_edited_checkpoint_is_found(log: AuditLog) -> None:
    rewrite(log.checkpoints_path, lambda lines: [line.replace(b'"count":4', b'"count":3') for line in lines])
    assert "checkpoints.jsonl:5 its signature is not of this site's key" in found(log)


def test_a_line_torn_by_a_crash_is_explained_and_put_aside(log: AuditLog) -> None:
    with log.path.open("ab") as file:
        file.write(b'{"at":"2026-11-23T12:00')
    report = log.verify()
    assert report.ok
    assert "line 7 of audit.jsonl is torn" in report.notes[0]
    assert len(list(log.entries())) == 6
    assert log.append("step", {}).seq == 7
    report = log.verify()
    assert (report.ok, report.entries, report.notes) == (True, 7, ())
    assert [p.read_bytes() for p in log.folder.glob("torn-*.bin")] == [b'{"at":"2026-11-23T12:00']


def test_a_signed_line_that_is_torn_is_a_cut(log: AuditLog) -> None:
    log.path.write_bytes(log.path.read_bytes()[:-10])
    assert "the tail was cut: 6 entries were signed, 5 are there" in found(log)
    with pytest.raises(AuditError, match="was cut"):
        log.append("step", {})


def test_a_crash_before_the_signature_is_explained(log: AuditLog) -> None:
    rewrite(log.checkpoints_path, lambda lines: lines[:-1])
    report = log.verify()
    assert (report.ok, report.entries, report.signed) == (True, 6, 5)
    assert "the entry at the end is not signed yet" in report.notes[0]
    log.append("step", {})
    assert log.verify().signed == 7


def test_entries_that_were_added_without_the_key_are_found_and_never_signed(log: AuditLog) -> None:
    lines = log.path.read_bytes().splitlines(keepends=True)
    for number in (7, 8):
        forged = json.loads(lines[-1]) | {
            "seq": number,
            "previous": hashlib.sha256(lines[-1].rstrip(b"\n")).hexdigest(),
        }
        lines.append(rfc8785.dumps(forged) + b"\n")
    log.path.write_bytes(b"".join(lines))
    assert "audit.jsonl:7 2 entries at the end were never signed" in found(log)
    with pytest.raises(AuditError, match="entries after the 6 signed ones"):
        log.append("step", {})
    stranger = json.loads(lines[6]) | {"previous": "0" * 64}
    log.path.write_bytes(b"".join([*lines[:6], rfc8785.dumps(stranger) + b"\n"]))
    with pytest.raises(AuditError, match="entries after the 6 signed ones"):
        log.append("step", {})
    assert log.path.read_bytes().count(b"\n") == 7


def test_an_entry_that_could_not_be_signed_is_signed_before_the_next_is_written(log: AuditLog) -> None:
    checkpoints = log.checkpoints_path.read_bytes().splitlines(keepends=True)
    log.checkpoints_path.write_bytes(b"".join(checkpoints[:-1]))
    log.append("step", {"number": 6})
    report = log.verify()
    assert (report.ok, report.entries, report.signed) == (True, 7, 7)
    assert report.checkpoints == len(checkpoints) + 1


def test_a_torn_checkpoint_is_explained(log: AuditLog) -> None:
    log.checkpoints_path.write_bytes(log.checkpoints_path.read_bytes()[:-20])
    report = log.verify()
    assert report.ok
    assert any("checkpoints.jsonl is torn" in note for note in report.notes)
    log.append("step", {})
    report = log.verify()
    assert (report.ok, report.signed, report.notes) == (True, 7, ())


def test_the_key_is_readable_by_its_owner_only(log: AuditLog) -> None:
    assert (log.keys / "audit.key").stat().st_mode & 0o777 == 0o600
    (log.keys / "audit.key").chmod(0o644)
    with pytest.raises(AuditError, match="can be read by others: run chmod 600"):
        log.append("step", {})


def test_a_lost_key_is_not_replaced_in_silence(log: AuditLog) -> None:
    (log.keys / "audit.key").unlink()
    with pytest.raises(AuditError, match=r"audit\.key' cannot be read"):
        log.append("step", {})
    (log.keys / "audit.pub").unlink()
    with pytest.raises(AuditError, match=r"audit\.pub' cannot be read"):
        log.verify()


def test_another_key_does_not_pass(log: AuditLog) -> None:
    create_keys(log.keys)
    assert "its signature is not of this site's key" in found(log)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN PUBLIC KEY-----\nAAAA\n"])
def test_a_damaged_key_is_one_line(log: AuditLog, content: bytes) -> None:
    (log.keys / "audit.pub").write_bytes(content)
    with pytest.raises(AuditError, match="is damaged") as caught:
        log.verify()
    assert "\n" not in str(caught.value)


def test_a_log_that_was_moved_aside_starts_anew_with_the_same_key(log: AuditLog) -> None:
    before = log.verify()
    log.folder.rename(log.folder.with_name("audit-old"))
    log.append("step", {})
    after = log.verify()
    assert (after.ok, after.entries, after.key) == (True, 1, before.key)


def test_secrets_do_not_reach_the_log(log: AuditLog) -> None:
    log.append("step", {"password": "hunter2", "text": "curl -H 'Authorization: Bearer abcdef123456'"})
    content = log.path.read_bytes()
    assert b"hunter2" not in content
    assert b"abcdef123456" not in content
    assert log.verify().ok


def test_values_that_json_cannot_hold_are_kept_as_text(log: AuditLog) -> None:
    entry = log.append("step", {"inode": 2**63, "ratio": float("nan"), "name": "\ud800"})
    assert entry.data == {"inode": str(2**63), "ratio": "nan", "name": "?"}
    assert log.verify().ok


def test_processes_append_in_turns(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom watchkeeper.runtime.audit import AuditLog\n"
        "log = AuditLog(Path(sys.argv[1]))\n"
        "for n in range(20):\n    log.append('step', {'who': sys.argv[2], 'n': n})\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(n)]) for n in range(4)]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0, 0]
    report = AuditLog(tmp_path).verify()
    assert (report.ok, report.entries, report.signed) == (True, 80, 80)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> AuditLog:
    log = AuditLog(tmp_path_factory.mktemp("sound"), now=lambda: NOON)
    for number in range(4):
        log.append("step", {"number": number, "text": f"entry {number}"})
    return log


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_single_byte_is_changed_it_is_found(sound: AuditLog, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([sound.path, sound.checkpoints_path]))
    before = path.read_bytes()
    place = data.draw(st.integers(0, len(before) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != before[place]))
    path.write_bytes(before[:place] + bytes([byte]) + before[place + 1 :])
    try:
        report = sound.verify()
    finally:
        path.write_bytes(before)
    torn_end = path == sound.checkpoints_path and place == len(before) - 1
    assert not report.ok or (torn_end and any("torn" in note for note in report.notes))


def test_another_end_of_line_is_an_edit_and_hides_nothing_behind_it(sound: AuditLog) -> None:
    before = sound.checkpoints_path.read_bytes()
    whole = sound.verify()
    assert whole.ok
    for place in range(len(before) - 1):
        sound.checkpoints_path.write_bytes(before[:place] + b"\r" + before[place + 1 :])
        try:
            report = sound.verify()
        finally:
            sound.checkpoints_path.write_bytes(before)
        assert not report.ok
        assert report.notes == whole.notes  # no crash is blamed


def test_another_spelling_of_a_signature_is_an_edit(sound: AuditLog) -> None:
    before = sound.checkpoints_path.read_bytes()
    signature = Checkpoint.model_validate_json(before.splitlines()[-1]).signature.encode()
    assert signature != signature.upper()
    for line in (
        before.replace(signature, signature.upper()),
        before.replace(signature, signature[:2] + b" " + signature[2:]),
        before.replace(b'"count":', b'"count": '),
    ):
        sound.checkpoints_path.write_bytes(line)
        try:
            assert not sound.verify().ok
        finally:
            sound.checkpoints_path.write_bytes(before)


@pytest.mark.crash
def test_kills_at_any_moment_leave_a_sound_log(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom watchkeeper.runtime.audit import AuditLog\n"
        "log = AuditLog(Path(sys.argv[1]))\n"
        "while True:\n    print(log.append('step', {'text': 'x' * 2000}).seq, flush=True)\n"
    )
    acknowledged = 0
    for round_ in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        with writer, writer.stdout:
            for _ in range(3 + round_ * 7):
                acknowledged = int(writer.stdout.readline())
            os.kill(writer.pid, signal.SIGKILL)
            rest = writer.stdout.read().split("\n")
            acknowledged = max([acknowledged, *(int(n) for n in rest[:-1] if n)])
        report = AuditLog(tmp_path).verify()
        assert report.ok, report.problems
        assert report.entries >= acknowledged
