"""An action that is killed at any line can be judged and undone from its plan alone: nothing is lost."""

from __future__ import annotations

import functools
import os
import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.killing import killed_at
from watchkeeper.tools import durable
from watchkeeper.tools.action import Action, ActionPlan, ProbeAnswer
from watchkeeper.tools.actions import ConfigRestore, DiskReclaim, config, disk, quarantine
from watchkeeper.tools.archive import ConfigArchive
from watchkeeper.tools.host import LocalHost, Target
from watchkeeper.tools.inventory import HostSpec, Service, Supervisord

pytestmark = pytest.mark.crash
TRACED = frozenset(str(module.__file__) for module in (config, disk, durable, quarantine))


def again(plan: ActionPlan) -> ActionPlan:
    """The plan as a process that was started after the crash reads it."""
    return ActionPlan.model_validate_json(plan.model_dump_json())


def target_of(folder: Path) -> Target:
    web = Service(
        name="web",
        supervisor=Supervisord(kind="supervisord", socket=folder / "none.sock"),
        config=(folder / "app.ini",),
        data=(folder / "data",),
    )
    return Target(LocalHost("here"), HostSpec(name="here", services=(web,)), folder / "state")


@functools.cache
def log_text(size: int, seed: int) -> bytes:
    text = bytearray(random.Random(seed).choices(b"abcdefgh", k=size))
    text[::80] = b"\n" * len(text[::80])
    return bytes(text)


def reclaim_case(folder: Path) -> tuple[Target, Action[Any], ActionPlan, Callable[[], dict[str, Any]]]:
    target = target_of(folder)
    (folder / "data").mkdir(parents=True)
    logs = [folder / "data" / "debug.log", folder / "data" / "trace.log"]
    for seed, log in enumerate(logs):
        log.write_bytes(log_text(90_000, seed))
        os.utime(log, ns=(0, 1_600_000_000_123456789))
    action = DiskReclaim()
    plan = action.plan(target, action.parse_arguments({"files": [str(p) for p in logs]}), key="k")
    return target, action, plan, lambda: {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in logs}


def restore_case(folder: Path) -> tuple[Target, Action[Any], ActionPlan, Callable[[], dict[str, Any]]]:
    target = target_of(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "app.ini"
    path.write_text("[web]\nport = 80\n")
    ConfigArchive.of(target).record(path, now=datetime.now(UTC))
    path.write_text("[web]\nport = eighty\n")
    path.chmod(0o640)
    os.utime(path, ns=(0, 1_600_000_000_123456789))
    action = ConfigRestore()
    plan = action.plan(target, action.parse_arguments({"path": str(path)}), key="k")

    def state() -> dict[str, Any]:
        status = path.stat()
        return {
            "content": path.read_bytes(),
            "status": (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns),
            "beside": sorted(p.name for p in folder.iterdir() if p.name != "state"),
        }

    return target, action, plan, state


CASES = {"disk.reclaim": reclaim_case, "config.restore": restore_case}


@pytest.mark.parametrize("name", CASES)
def test_apply_killed_at_any_line_can_be_judged_and_undone(tmp_path: Path, name: str) -> None:
    seen: dict[ProbeAnswer, int] = {}
    line, died = 0, True
    while died:
        line += 1
        folder = tmp_path / str(line)
        target, action, plan, state = CASES[name](folder)
        before = state()
        died = killed_at(line, TRACED, lambda: action.apply(target, plan))  # noqa: B023 (called at once)
        plan = again(plan)
        answer = action.probe(target, plan)
        seen[answer] = seen.get(answer, 0) + 1
        if answer is ProbeAnswer.DONE:
            assert action.verify(target, plan).ok, f"killed at line {line}"
        elif answer is ProbeAnswer.NOT_DONE:
            now = state()
            now.pop("beside", None)
            assert all(now[k] == before[k] for k in now), f"killed at line {line}"
        action.rollback(target, plan)
        assert state() == before, f"killed at line {line}"
        assert action.probe(target, plan) is ProbeAnswer.NOT_DONE
        action.rollback(target, plan)
        assert state() == before
        shutil.rmtree(folder)
    assert line > 50
    assert seen[ProbeAnswer.NOT_DONE] > 10
    assert seen[ProbeAnswer.DONE] > 1
    if name == "disk.reclaim":
        assert seen[ProbeAnswer.UNKNOWN] > 10  # one of two files was done


@pytest.mark.parametrize("name", CASES)
def test_rollback_killed_at_any_line_can_be_repeated(tmp_path: Path, name: str) -> None:
    line, died = 0, True
    while died:
        line += 1
        folder = tmp_path / str(line)
        target, action, plan, state = CASES[name](folder)
        before = state()
        action.apply(target, plan)
        died = killed_at(line, TRACED, lambda: action.rollback(target, plan))  # noqa: B023 (called at once)
        action.rollback(target, again(plan))
        assert state() == before, f"killed at line {line}"
        shutil.rmtree(folder)
    assert line > 25


def test_what_is_appended_between_a_kill_and_the_rollback_is_kept(tmp_path: Path) -> None:
    line, died = 0, True
    while died:
        line += 7
        folder = tmp_path / str(line)
        target, action, plan, _ = reclaim_case(folder)
        logs = sorted((folder / "data").iterdir())
        before = [log.read_bytes() for log in logs]
        died = killed_at(line, TRACED, lambda: action.apply(target, plan))  # noqa: B023 (called at once)
        for log in logs:
            with log.open("ab") as stream:
                stream.write(b"appended\n" * 10_000)
        action.rollback(target, again(plan))
        assert [log.read_bytes() for log in logs] == [content + b"appended\n" * 10_000 for content in before]
        shutil.rmtree(folder)
