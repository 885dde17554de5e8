"""Old incidents are removed wholly, live and doubtful ones never, and what is removed is audited."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from tests.lamp import ALERT, ALLOW, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper import Orchestrator
from watchkeeper.cli import incidents as command
from watchkeeper.runtime import retention, schema
from watchkeeper.runtime.errors import AuditError, RetentionError, UnknownIncidentError
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.limits import Limits
from watchkeeper.runtime.reviews import Reviews, ReviewVerdict
from watchkeeper.runtime.training import TrainingJobs
from watchkeeper.tools.training.spec import JobSpec

LATER = datetime.now(UTC) + timedelta(days=1)
AGO = LATER - timedelta(days=180)
LONG_AGO = dict.fromkeys(
    ("intended_at", "completed_at", "rollback_intended_at", "rollback_completed_at"), AGO
)


@pytest.fixture
def o(tmp_path: Path) -> Iterator[Orchestrator]:
    """One incident that ended half a year ago, and one that waits for an answer."""
    lamp = Lamp.dark(tmp_path, switch="off", bulb="dusty")
    with folder_in_memory() as folder:
        with orchestrator(folder / "home", lamp, prefers("bulb"), rules=ALLOW) as first:
            ended = first.open(ALERT).id
            list(first.resume(ended))
            age(first, ended)
        lamp.put("switch", "off")
        with orchestrator(folder / "home", lamp, prefers("switch")) as second:
            list(second.resume(second.open(ALERT).id, wait=False))
            yield second


def age(o: Orchestrator, incident_id: str) -> None:
    """Let an incident and its effects be half a year old."""
    incidents, effects = schema.incidents, schema.effects
    with o.journal.store.transaction() as connection:
        connection.execute(
            incidents.update().where(incidents.c.id == incident_id).values(opened_at=AGO, ended_at=AGO)
        )
        connection.execute(effects.update().values(LONG_AGO))


def counted(o: Orchestrator) -> dict[str, int]:
    with o.journal.store.reading() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in schema.metadata.sorted_tables
        }


def prune(o: Orchestrator, before: datetime = LATER, *, with_reviews: bool = False) -> retention.Pruned:
    journal = o.journal
    return retention.prune_incidents(
        journal.store,
        journal.audit,
        home=journal.home,
        before=before,
        by="ann",
        limits=Limits(),
        with_reviews=with_reviews,
        now=lambda: LATER,
    )


def test_an_ended_incident_goes_and_a_live_one_stays_whole(o: Orchestrator) -> None:
    live, ended = o.journal.incidents.list()
    before = o.report(live.id)
    found = counted(o)
    gone = prune(o)
    assert (gone.incidents, gone.kept_in_doubt) == ((ended.id,), ())
    left = counted(o)
    # Its lease is no record, and its id is kept.
    assert gone.rows == sum(found.values()) - sum(left.values())
    assert all(left[name] < found[name] for name in ("events", "evidence", "decisions", "steps", "effects"))
    with pytest.raises(UnknownIncidentError):
        o.journal.incidents.get(ended.id)
    after = o.report(live.id)
    assert after.model_copy(update={"cost": before.cost}) == before
    assert (o.journal.home / "reports" / f"{ended.id}.md").exists()
    entry = list(o.journal.audit.entries())[-1]
    assert entry.kind == "incidents-pruned"
    assert entry.data["incidents"] == [ended.id]  # type: ignore[index,call-overload]
    o.journal.store.check()


def test_a_training_job_outlives_the_incident_that_its_failure_opened(o: Orchestrator) -> None:
    ended = next(one.id for one in o.journal.incidents.list() if one.status.ended)
    jobs = TrainingJobs(o.journal.store, o.journal.home, o.journal.audit)
    job = jobs.submit(JobSpec(name="j", trainer="t:T", data=Path("/d"), launcher="python"), by="ann")
    jobs.note_incident(job.id, ended)
    assert prune(o).incidents == (ended,)
    assert jobs.get(job.id).incident_id == ""


def test_the_id_of_a_removed_incident_is_given_to_no_other(o: Orchestrator) -> None:
    ended = next(one.id for one in o.journal.incidents.list() if one.status.ended)
    prune(o)
    drawn = iter([ended.removeprefix("INC-"), ended.removeprefix("INC-"), "NEW2"])
    incidents = Incidents(o.journal.store, short=lambda length: next(drawn))
    assert incidents._free_id() == "INC-NEW2"


def test_one_that_is_not_old_stays(o: Orchestrator) -> None:
    before = counted(o)
    assert prune(o, AGO - timedelta(days=1)).incidents == ()
    assert counted(o) == before


def test_one_with_an_effect_in_doubt_stays(o: Orchestrator) -> None:
    ended = o.journal.incidents.list()[1]
    with o.journal.store.transaction() as connection:
        connection.execute(
            schema.effects.update().where(schema.effects.c.incident_id == ended.id).values(state="intended")
        )
    gone = prune(o)
    assert (gone.incidents, gone.kept_in_doubt) == ((), (ended.id,))
    assert o.journal.incidents.get(ended.id)


def test_what_was_reviewed_goes_only_if_that_is_said(o: Orchestrator) -> None:
    ended = o.journal.incidents.list()[1]
    decision = next(d for d in o.journal.decisions.list(ended.id) if len(d.options) > 1)
    Reviews(o.journal.store, o.journal.audit).add(decision.id, ReviewVerdict.RIGHT, by="ann")
    with pytest.raises(RetentionError, match="1 reviews of decisions would be removed"):
        prune(o)
    assert prune(o, with_reviews=True).reviews == 1


def test_what_cannot_be_audited_is_not_removed(o: Orchestrator) -> None:
    before = counted(o)
    (o.journal.home / "keys" / "audit.key").chmod(0o644)
    with pytest.raises(AuditError):
        prune(o)
    assert counted(o) == before


def test_batches_are_bounded(o: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 1)
    live = o.journal.incidents.list()[0].id
    with o.journal.store.transaction() as connection:
        connection.execute(
            schema.incidents.update()
            .where(schema.incidents.c.id == live)
            .values(status="closed", ended_at=datetime.now(UTC))
        )
    assert live not in prune(o).incidents, "somebody is still being called for it"
    with o.journal.store.transaction() as connection:
        connection.execute(schema.escalations.update().values(status="answered"))
        connection.execute(schema.jobs.update().values(status="done", ended_at=datetime.now(UTC)))
    assert prune(o).incidents == (live,)
    entries = [entry for entry in o.journal.audit.entries() if entry.kind == "incidents-pruned"]
    assert len(entries) == 2
    assert sum(v for name, v in counted(o).items() if name != "watchkeeper_meta") == 0


def test_the_command(o: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(o.journal.home))
    before = f"{LATER:%Y-%m-%d}"
    ended, now = o.journal.incidents.list()[1].id, datetime.now(UTC)
    with o.journal.store.transaction() as connection:
        connection.execute(schema.effects.update().values(intended_at=now))
    result = CliRunner().invoke(command.app, ["prune", "--before", before], catch_exceptions=False)
    assert "0 incidents removed" in result.stdout
    assert (
        f"kept, since limits, breakers or loops may still count their actions: {ended}\n"
    ) in result.stdout
    age(o, ended)
    result = CliRunner().invoke(command.app, ["prune", "--before", before, "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["incidents"] == [ended]
    again = CliRunner().invoke(command.app, ["prune", "--before", "1d"], catch_exceptions=False)
    live = o.journal.incidents.list()[0].id
    assert again.stdout == f"0 incidents removed, 0 rows\nkept, since it has not ended: {live}\n"


def test_the_command_says_what_was_removed_and_for_each_that_was_kept_why(
    o: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(before: str, *more: str) -> str:
        ended = CliRunner().invoke(command.app, ["prune", "--before", before, *more], catch_exceptions=False)
        return ended.stdout

    monkeypatch.setenv("WATCHKEEPER_HOME", str(o.journal.home))
    live, ended = (incident.id for incident in o.journal.incidents.list())
    before, early = f"{LATER:%Y-%m-%d}", f"{AGO - timedelta(days=9):%Y-%m-%d}"
    assert f"kept, since it did not end before {early} 00:00:00 UTC: {ended}\n" in run(early)
    incidents, calls = schema.incidents, schema.escalations
    with o.journal.store.transaction() as connection:
        connection.execute(
            incidents.update().where(incidents.c.id == live).values(status="closed", ended_at=AGO)
        )
        connection.execute(calls.update().values(status="waiting"))
    with monkeypatch.context() as patched:
        patched.setattr(command, "_NAMED", 1)
        assert f" UTC: {ended} and 1 more (all with --json)\n" in run(early)
    events = len(o.journal.incidents.events(ended))
    said = run(before)
    first, second = said.splitlines()
    assert first.startswith("1 incident removed, ")
    assert f" events {events}," in first
    rows = [part.rsplit(" ", 1) for part in first.partition(": ")[2].split(", ")]
    assert sum(int(count) for _, count in rows) == int(first.split()[3])
    assert {"incidents", "evidence", "decisions", "effects"} <= {name for name, _ in rows}
    why = "people are still called about it (see `watchkeeper escalations list`)"
    assert second == f"kept, since {why}: {live}"
    assert json.loads(run(before, "--json"))["kept_for_calls"] == [live]
