"""A home that an older release left with an incident waiting for an answer goes on to its end."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver

from tests.lamp import ALERT, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper.runtime.approvals import ApprovalStatus

SCHEMAS = Path(__file__).parents[1] / "golden" / "databases"
CHECKPOINTS = {"checkpoints": "checkpoints", "writes": "checkpoint_writes"}
"""Tables of LangGraph's own saver, which older releases used, and those that took their place."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder


def make_old(path: Path, version: int) -> None:
    """Write a database anew as the release of a schema had it, with the rows that it could hold."""
    new = path.with_suffix(".new")
    path.rename(new)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.executescript((SCHEMAS / f"schema-{version}.sql").read_text())
        old.execute("ATTACH ? AS later", (str(new),))
        SqliteSaver(old).setup()
        tables = [row[0] for row in old.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")]
        for name in tables:
            columns = [row[1] for row in old.execute(f'PRAGMA main.table_info("{name}")')]
            source = CHECKPOINTS.get(name, name)
            known = {row[1] for row in old.execute(f'PRAGMA later.table_info("{source}")')}
            shared = ", ".join(f'"{column}"' for column in columns if column in known)
            old.execute(f'INSERT INTO main."{name}" ({shared}) SELECT {shared} FROM later."{source}"')
        old.execute("DELETE FROM watchkeeper_meta WHERE name != 'schema'")
        old.execute("UPDATE watchkeeper_meta SET value = ? WHERE name = 'schema'", (str(version),))
        old.commit()
    new.unlink()


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("answered", [False, True])
def test_an_incident_that_waits_is_answered_and_resumed_by_this_release(
    tmp_path: Path, folder: Path, version: int, answered: bool
) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    home = folder / "home"
    with orchestrator(home, lamp, prefers("switch")) as o:
        incident = o.open(ALERT).id
        list(o.resume(incident, wait=False))
        (asked,) = o.journal.approvals.list()
        if answered:
            o.answer(asked.id, "approve", by="bob")
        before = o.journal.incidents.evidence(incident)
        evidence = [item.model_dump() for item in before]
        decisions = o.journal.decisions.list(incident)
    make_old(home / "watchkeeper.db", version)
    with orchestrator(home, lamp, prefers("switch")) as o:
        o.journal.store.check()
        (kept,) = o.journal.approvals.list()
        assert kept.status is (ApprovalStatus.APPROVED if answered else ApprovalStatus.PENDING)
        assert kept.digest == asked.digest
        assert [item.model_dump() for item in o.journal.incidents.evidence(incident)] == evidence
        if not answered:
            o.answer(asked.id, "approve", by="bob")
        list(o.resume(incident))
        report = o.report(incident)
        assert report.outcome == "resolved"
        assert report.decisions[: len(decisions)] == decisions
        assert [approval.decided_by for approval in report.approvals] == ["bob"]
        assert o.journal.audit.verify().ok
    assert lamp.shines()
    assert all(count == 1 for who, count in lamp.changes().items() if who != "somebody")
