"""Logs are set aside and brought back without losing a byte, whoever writes to them meanwhile."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watchkeeper.tools.action import ActionPlan, ProbeAnswer
from watchkeeper.tools.actions import DiskReclaim
from watchkeeper.tools.actions.logfiles import ask_rooms
from watchkeeper.tools.actions.quarantine import Entry, Quarantine
from watchkeeper.tools.errors import ApplyError, DriftError, PlanError, RollbackError
from watchkeeper.tools.host import LocalHost, Target
from watchkeeper.tools.inventory import HostSpec, Service, Supervisord

WRITER = """
import os, sys, time
handle = os.open(sys.argv[1], os.O_WRONLY | (os.O_APPEND if sys.argv[2] == "append" else 0))
if sys.argv[2] != "append":
    os.lseek(handle, 0, os.SEEK_END)
written = 0
print("ready", flush=True)
while written < int(sys.argv[3]):
    line = b"appended line %08d\\n" % written
    try:
        os.write(handle, line)
    except OSError:
        time.sleep(0.001)
        continue
    written += 1
    if written % 50 == 0:
        time.sleep(0.001)
"""


@contextmanager
def tmpfs(size: str) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a file system of its own needs root")
    folder = Path(tempfile.mkdtemp())
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True
    )
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


@pytest.fixture
def full() -> Iterator[Path]:
    with tmpfs("4m") as folder:
        yield folder


def log_text(size: int, seed: int = 1) -> bytes:
    chance = random.Random(seed)
    lines = []
    total = 0
    while total < size:
        line = b"%d something happened to request %x\n" % (total, chance.getrandbits(64))
        lines.append(line)
        total += len(line)
    return b"".join(lines)[: size - 1] + b"\n"


def target_of(data: Path, state: Path) -> Target:
    web = Service(
        name="web",
        supervisor=Supervisord(kind="supervisord", socket=state / "none.sock"),
        logs=(data / "web.log",),
        data=(data,),
    )
    return Target(LocalHost("here"), HostSpec(name="here", services=(web,)), state)


def plan_for(target: Target, *paths: Path, action: DiskReclaim | None = None) -> ActionPlan:
    action = action or DiskReclaim()
    plan = action.plan(target, action.parse_arguments({"files": [str(p) for p in paths]}), key="step/1")
    return ActionPlan.model_validate_json(plan.model_dump_json())


def free(folder: Path) -> int:
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize


def test_a_full_disk_has_room_again_and_rollback_brings_back_every_byte(full: Path, tmp_path: Path) -> None:
    log = full / "web.log"
    content = log_text(3_500_000)
    log.write_bytes(content)
    log.chmod(0o640)
    os.chown(log, 12, 34)
    os.utime(log, ns=(1_600_000_000_123456789, 1_600_000_001_987654321))
    (full / "rest").write_bytes(b"x" * free(full))
    assert free(full) == 0
    target, action = target_of(full, tmp_path), DiskReclaim()
    plan = plan_for(target, log)
    assert log.read_bytes() == content
    assert action.probe(target, plan) is ProbeAnswer.NOT_DONE
    action.apply(target, plan)
    assert free(full) > 3_400_000
    assert log.read_bytes()[-60_000:] == content[-60_000:]
    assert action.verify(target, plan).ok
    assert action.probe(target, plan) is ProbeAnswer.DONE
    action.rollback(target, plan)
    status = log.stat()
    assert log.read_bytes() == content
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 12, 34)
    assert status.st_mtime_ns == 1_600_000_001_987654321
    assert action.probe(target, plan) is ProbeAnswer.NOT_DONE
    assert action.rollback(target, plan).changed == ()
    assert log.read_bytes() == content


def test_what_was_reclaimed_is_not_reclaimed_again_until_it_grows(tmp_path: Path) -> None:
    log = tmp_path / "data" / "web.log"
    log.parent.mkdir()
    log.write_bytes(log_text(500_000))
    target = target_of(log.parent, tmp_path / "state")
    DiskReclaim().apply(target, plan_for(target, log))
    assert plan_for(target, log).is_empty
    with log.open("ab") as stream:
        stream.write(log_text(300_000, seed=2))
    assert "292 KiB" in plan_for(target, log).diff


@pytest.mark.parametrize("mode", ["append", "at-its-end"])
def test_a_real_writer_loses_nothing_while_its_log_is_reclaimed_and_restored(
    full: Path, tmp_path: Path, mode: str
) -> None:
    log = full / "web.log"
    before = log_text(1_500_000)
    log.write_bytes(before)
    lines = 20_000
    expected = before + b"".join(b"appended line %08d\n" % i for i in range(lines))
    target, action = target_of(full, tmp_path), DiskReclaim()
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(log), mode, str(lines)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        plan = plan_for(target, log)
        assert f"process {writer.pid}" in plan.risk
        action.apply(target, plan)
        assert action.verify(target, plan).ok
        running_between = writer.poll() is None
        action.rollback(target, plan)
        writer.wait(timeout=60)
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert running_between
    assert log.read_bytes() == expected


def test_a_writer_inside_of_the_file_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "data" / "web.log"
    log.parent.mkdir()
    log.write_bytes(log_text(500_000))
    script = "import sys, time; f = open(sys.argv[1], 'r+b'); print('ready', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script, str(log)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        try:
            with pytest.raises(PlanError, match=f"process {writer.pid} .* writes inside of it"):
                plan_for(target_of(log.parent, tmp_path / "state"), log)
        finally:
            writer.kill()


@pytest.mark.parametrize("change", ["rotated", "emptied", "linked"])
def test_a_file_that_is_another_one_than_planned_is_not_touched(tmp_path: Path, change: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    log, other = data / "web.log", data / "debug.log"
    log.write_bytes(log_text(300_000))
    other.write_bytes(log_text(300_000, seed=2))
    target = target_of(data, tmp_path / "state")
    plan = plan_for(target, log, other)
    if change == "rotated":
        other.rename(data / "debug.log.1")
        other.write_bytes(log_text(300_000, seed=3))
    elif change == "emptied":
        other.write_bytes(log_text(300_000, seed=3))
    else:
        (data / "second").hardlink_to(other)
    with pytest.raises(DriftError):
        DiskReclaim().apply(target, plan)
    assert log.read_bytes() == log_text(300_000)
    assert DiskReclaim().probe(target, plan) in (ProbeAnswer.NOT_DONE, ProbeAnswer.UNKNOWN)


def test_a_log_that_was_rotated_after_it_was_reclaimed_is_restored_under_its_new_name(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    log, content = data / "web.log", log_text(300_000)
    log.write_bytes(content)
    target = target_of(data, tmp_path / "state")
    plan = plan_for(target, log)
    DiskReclaim().apply(target, plan)
    log.rename(data / "web.log.1")
    log.write_bytes(b"new\n")
    DiskReclaim().rollback(target, plan)
    assert (data / "web.log.1").read_bytes() == content
    assert log.read_bytes() == b"new\n"


def test_a_log_that_was_written_anew_is_left_alone_and_its_copy_kept(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    log, other = data / "web.log", data / "debug.log"
    log.write_bytes(log_text(300_000))
    other.write_bytes(log_text(300_000, seed=2))
    target = target_of(data, tmp_path / "state")
    plan = plan_for(target, log, other)
    DiskReclaim().apply(target, plan)
    new = log_text(400_000, seed=9)
    with log.open("r+b") as stream:
        stream.truncate(0)
        stream.write(new)
    with pytest.raises(RollbackError, match="other content"):
        DiskReclaim().rollback(target, plan)
    assert log.read_bytes() == new
    assert other.read_bytes() == log_text(300_000, seed=2)
    assert len(list((tmp_path / "state" / "quarantine").rglob("*.gz"))) == 1


def test_rollback_says_how_much_room_it_needs_and_works_once_there_is(full: Path, tmp_path: Path) -> None:
    log, content = full / "web.log", log_text(2_000_000)
    log.write_bytes(content)
    target = target_of(full, tmp_path)
    plan = plan_for(target, log)
    DiskReclaim().apply(target, plan)
    (full / "rest").write_bytes(b"x" * (free(full) - 100_000))
    with pytest.raises(RollbackError, match=r"restoring needs 1\.8 MiB"):
        DiskReclaim().rollback(target, plan)
    (full / "rest").unlink()
    DiskReclaim().rollback(target, plan)
    assert log.read_bytes() == content


def noise(size: int) -> bytes:
    """Text that hardly compresses."""
    return bytes(random.Random(1).choices(b"abcdefghijklmnopqrstuvwxyz0123456789\n", k=size))


def noisy(data: Path, room: Path, size: int) -> tuple[Path, Target, ActionPlan]:
    """A log of such text, and the plan to move it into the one room that there is."""
    log = data / "data" / "web.log"
    log.parent.mkdir()
    log.write_bytes(noise(size))
    target = target_of(log.parent, room)
    return log, target, plan_for(target, log, action=DiskReclaim(rooms=()))


def test_a_room_that_is_full_by_now_leaves_the_log_as_it_was(full: Path, tmp_path: Path) -> None:
    log, target, plan = noisy(tmp_path, full, 2_000_000)
    (full / "rest").write_bytes(b"x" * (free(full) - 8192))
    with pytest.raises(DriftError, match="no room any more"):
        DiskReclaim(rooms=()).apply(target, plan)
    assert log.read_bytes() == noise(2_000_000)


def test_a_room_that_fills_up_leaves_the_log_as_it_was(full: Path, tmp_path: Path) -> None:
    log, target, plan = noisy(tmp_path, full, 2_000_000)
    action = DiskReclaim(rooms=())
    (full / "rest").write_bytes(b"x" * (free(full) - 200_000))
    # The sample that was taken for the plan said that next to nothing is needed.
    (file,) = plan.details["files"]  # type: ignore[misc]
    hopeful = plan.model_copy(update={"details": {**plan.details, "files": [{**file, "ratio": 0.0}]}})  # type: ignore[dict-item]
    with pytest.raises(ApplyError, match="nothing was changed"):
        action.apply(target, hopeful)
    assert log.read_bytes() == noise(2_000_000)
    assert not list((full / "quarantine").iterdir())
    assert action.probe(target, plan) is ProbeAnswer.NOT_DONE


def test_nothing_is_planned_where_there_is_no_room(full: Path) -> None:
    log = full / "web.log"
    log.write_bytes(log_text(3_000_000))
    (full / "rest").write_bytes(b"x" * free(full))
    with pytest.raises(PlanError, match=r"nowhere to move .* has 0 bytes"):
        plan_for(target_of(full, full / "state"), log, action=DiskReclaim(rooms=(full / "other",)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"SQLite format 3\0" + b"\0" * 300_000, "a SQLite database"),
        (b"\x1f\x8b" + os.urandom(300_000), "compressed with gzip"),
        (b"text\n" * 30_000 + b"\0" * 100_000 + b"text\n" * 30_000, "binary"),
        (bytes(random.Random(2).choices(range(1, 256), k=300_000)), "binary"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    log = tmp_path / "data" / "web.log"
    log.parent.mkdir()
    log.write_bytes(content)
    with pytest.raises(PlanError, match=reason):
        plan_for(target_of(log.parent, tmp_path / "state"), log)


def test_zero_bytes_that_the_sample_missed_are_found_before_anything_is_freed(tmp_path: Path) -> None:
    log = tmp_path / "data" / "web.log"
    log.parent.mkdir()
    content = bytearray(log_text(3_000_000))
    content[700_000] = 0
    log.write_bytes(content)
    target = target_of(log.parent, tmp_path / "state")
    plan = plan_for(target, log)
    with pytest.raises(ApplyError, match=r"nothing was changed: .* zero bytes"):
        DiskReclaim().apply(target, plan)
    assert log.read_bytes() == content


def test_symbolic_links_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "secret.log").write_bytes(log_text(300_000))
    (data / "web.log").symlink_to(tmp_path / "secret.log")
    with pytest.raises(PlanError, match="symbolic link"):
        plan_for(target_of(data, tmp_path / "state"), data / "web.log")
    (data / "in").symlink_to(tmp_path)
    with pytest.raises(PlanError, match="neither a log"):
        plan_for(target_of(data, tmp_path / "state"), data / "in" / "secret.log")


@pytest.mark.skipif(os.geteuid() != 0, reason="links of another user can be made by root alone")
def test_who_owns_the_folder_of_a_log_cannot_have_the_logs_of_others_reclaimed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "auth.log").write_bytes(log_text(300_000))
    logs = tmp_path / "site" / "logs"
    logs.mkdir(parents=True)
    os.chown(logs.parent, 64123, 64123)
    (logs / "auth.log").write_bytes(log_text(300_000))
    web = Service(
        name="web",
        supervisor=Supervisord(kind="supervisord", socket=tmp_path / "none.sock"),
        logs=(logs / "web.log",),
    )
    target = Target(LocalHost("here"), HostSpec(name="here", services=(web,)), tmp_path / "state")
    plan = plan_for(target, logs / "auth.log")
    # The folder is exchanged for a link, as its owner may do: before the plan, or after it.
    logs.rename(logs.with_name("mine"))
    logs.symlink_to(elsewhere)
    os.chown(logs, 64123, 64123, follow_symlinks=False)
    with pytest.raises(PlanError, match="of another user leads to a folder that is not that user's"):
        plan_for(target, logs / "auth.log")
    with pytest.raises(DriftError, match="of another user"):
        DiskReclaim().apply(target, plan)
    assert (elsewhere / "auth.log").read_bytes() == log_text(300_000)


def test_a_room_that_another_user_has_taken_is_not_chosen(tmp_path: Path) -> None:
    (tmp_path / "taken").symlink_to(tmp_path)
    taken, free_one = ask_rooms((tmp_path / "taken", tmp_path / "free"))
    assert (taken.writable, free_one.writable) == (False, True)


def test_a_copy_that_was_damaged_is_noticed_and_not_written_back(tmp_path: Path) -> None:
    log = tmp_path / "data" / "web.log"
    log.parent.mkdir()
    log.write_bytes(log_text(300_000))
    target = target_of(log.parent, tmp_path / "state")
    plan = plan_for(target, log)
    DiskReclaim().apply(target, plan)
    copy = next((tmp_path / "state" / "quarantine").rglob("*.gz"))
    damaged = bytearray(copy.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    copy.write_bytes(damaged)
    after = log.read_bytes()
    assert not DiskReclaim().verify(target, plan).ok
    with pytest.raises(RollbackError):
        DiskReclaim().rollback(target, plan)
    assert log.read_bytes() == after


def test_an_action_that_was_begun_is_not_applied_again(tmp_path: Path) -> None:
    log = tmp_path / "data" / "web.log"
    log.parent.mkdir()
    log.write_bytes(log_text(300_000))
    target = target_of(log.parent, tmp_path / "state")
    plan = plan_for(target, log)
    DiskReclaim().apply(target, plan)
    with pytest.raises((ApplyError, DriftError)):
        DiskReclaim().apply(target, plan)
    assert DiskReclaim().verify(target, plan).ok


letters = st.characters(min_codepoint=32, max_codepoint=0x2FFF)
lines = st.tuples(st.text(letters, max_size=40), st.integers(1, 3_000)).map(
    lambda t: (t[0] + "\n").encode() * t[1]
)
chunks = st.lists(lines, max_size=4)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    size=st.integers(0, 400_000),
    seed=st.integers(0, 100),
    planned=chunks,
    applied=chunks,
    reclaimed_again=st.booleans(),
)
def test_reclaim_and_rollback_return_the_bytes_whatever_is_appended_when(
    size: int, seed: int, planned: list[bytes], applied: list[bytes], reclaimed_again: bool
) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        log = folder / "data" / "web.log"
        log.parent.mkdir()
        expected = log_text(size + 1, seed)
        log.write_bytes(expected)
        target, action = target_of(log.parent, folder / "state"), DiskReclaim()
        arguments = action.parse_arguments({"files": [str(log)]})
        plans = []
        with log.open("ab", buffering=0) as writer:
            for key in ("1", "2") if reclaimed_again else ("1",):
                plan = action.plan(target, arguments, key=key)
                for chunk in planned:
                    writer.write(chunk)
                    expected += chunk
                if not plan.is_empty:
                    action.apply(target, plan)
                    plans.append(plan)
                for chunk in applied:
                    writer.write(chunk)
                    expected += chunk
            assert log.stat().st_size == len(expected)
            for plan in reversed(plans):
                action.rollback(target, plan)
                action.rollback(target, plan)
        assert log.read_bytes() == expected
    finally:
        shutil.rmtree(folder)


def test_a_reclaim_takes_what_was_appended_after_it_was_planned_too(tmp_path: Path) -> None:
    log = tmp_path / "data" / "web.log"
    log.parent.mkdir()
    log.write_bytes(log_text(200_000))
    target = target_of(log.parent, tmp_path / "state")
    plan = plan_for(target, log)
    with log.open("ab") as stream:
        stream.write(log_text(2_000_000, seed=5))
    started = time.monotonic()
    DiskReclaim().apply(target, plan)
    assert time.monotonic() - started < 30
    assert log.stat().st_blocks * 512 < 100_000


def test_a_log_that_is_emptied_while_it_is_copied_loses_none_of_its_new_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "data" / "web.log"
    log.parent.mkdir()
    log.write_bytes(log_text(2_000_000))
    target = target_of(log.parent, tmp_path / "state")
    plan = plan_for(target, log)
    new = log_text(2_500_000, seed=7)
    save = Quarantine.save

    def saved(self: Quarantine, index: int, handle: int, entry: Entry) -> Entry:
        entry = save(self, index, handle, entry)
        log.write_bytes(new)  # as copytruncate does, and the writer goes on
        return entry

    monkeypatch.setattr(Quarantine, "save", saved)
    with pytest.raises(ApplyError, match="emptied or written anew"):
        DiskReclaim().apply(target, plan)
    assert log.read_bytes() == new


def test_there_must_be_room_for_what_a_log_has_grown_to(full: Path, tmp_path: Path) -> None:
    log, target, plan = noisy(tmp_path, full, 500_000)
    grown = noise(500_000) * 40
    log.write_bytes(grown)
    with pytest.raises(DriftError, match="no room any more"):
        DiskReclaim(rooms=()).apply(target, plan)
    assert log.read_bytes() == grown
