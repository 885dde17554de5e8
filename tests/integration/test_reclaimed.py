"""What was moved away to free space is listed, and let go by a person alone, once nothing needs it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from sqlalchemy import update
from typer.testing import CliRunner, Result

from tests.lamp import ALLOW
from watchkeeper import Alert, Orchestrator, Settings
from watchkeeper.cli import build_app
from watchkeeper.models.scripted import ScriptedEngine
from watchkeeper.runtime import schema
from watchkeeper.runtime.alerts import Condition
from watchkeeper.runtime.audit_records import RESTORED
from watchkeeper.runtime.errors import RetentionError, UnknownRecordError
from watchkeeper.runtime.incidents import IncidentStatus
from watchkeeper.runtime.ledger import EffectState
from watchkeeper.runtime.reclaimed import list_reclaimed, release_reclaimed
from watchkeeper.runtime.site import Site
from watchkeeper.tools.actions import DiskReclaim
from watchkeeper.tools.actions.quarantine import Entry, Quarantine, Stage
from watchkeeper.tools.builtin import builtin_registry
from watchkeeper.tools.inventory import Inventory
from watchkeeper.tools.registry import Registry

LINE = b"2026-01-05T12:00:00Z INFO answered a request\n"


@pytest.fixture
def orchestrator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orchestrator]:
    # Not into folders that other tests, and homes of this user, use too.
    monkeypatch.setattr("watchkeeper.tools.actions.disk.default_rooms", lambda: ())
    home, log = tmp_path / "home", tmp_path / "web.log"
    log.write_bytes(LINE * 20_000)
    home.mkdir()
    service = {"name": "web", "supervisor": {"kind": "systemd"}, "logs": [str(log)]}
    inventory = {"hosts": [{"name": "here", "services": [service]}]}
    (home / "inventory.yaml").write_text(yaml.safe_dump(inventory))
    (home / "policy.yaml").write_text(ALLOW)
    with Orchestrator(
        inventory=Inventory.model_validate(inventory),
        engine=ScriptedEngine(),
        policy=home / "policy.yaml",
        settings=Settings(home=home, solo=True),
    ) as made:
        yield made


def reclaim(o: Orchestrator, log: Path) -> str:
    """Move the older content of a log away, and return the step that did."""
    condition = Condition(fact="disk.usage", arguments={"path": str(log.parent)}, firing=("filesystem-full",))
    incident = o.open(Alert(title="disk full", host="here", service="web", condition=condition)).id
    step = o.changes.propose(
        incident, host="here", action="disk.reclaim", arguments={"files": [str(log)]}, key="mine"
    )
    o.changes.decide(step.id)
    assert o.changes.apply(step.id).ok
    return step.id


def test_it_stays_while_its_incident_lives_and_is_let_go_by_a_person(
    orchestrator: Orchestrator, tmp_path: Path
) -> None:
    o, log = orchestrator, tmp_path / "web.log"
    step = reclaim(o, log)
    incident = o.journal.steps.get(step).incident_id
    (found,) = list_reclaimed(o.site, o.journal)
    assert (found.step, found.incident, found.files) == (step, incident, (str(log),))
    assert found.size > 0
    assert found.kept == f"incident {incident} has not ended"
    with pytest.raises(RetentionError, match="has not ended"):
        release_reclaimed(o.site, o.journal, step, by="ann")
    assert found.folder.is_dir()
    o.journal.incidents.set_status(incident, IncidentStatus.CLOSED, summary="done")
    gone = release_reclaimed(o.site, o.journal, step, by="ann", reason="kept for a year")
    assert gone.kept == ""
    assert not found.folder.exists()
    assert list_reclaimed(o.site, o.journal) == ()
    told = list(o.journal.audit.entries())[-1]
    assert told.kind == "reclaimed-released"
    assert isinstance(told.data, dict)
    assert (told.data["step"], told.data["by"], told.data["reason"]) == (step, "ann", "kept for a year")
    assert str(log) in json.dumps(told.data["files"])
    with pytest.raises(UnknownRecordError, match="nothing that step"):
        release_reclaimed(o.site, o.journal, step, by="ann")


def test_what_was_brought_back_is_not_listed(orchestrator: Orchestrator, tmp_path: Path) -> None:
    o, log = orchestrator, tmp_path / "web.log"
    step = reclaim(o, log)
    assert o.changes.verify(step).ok
    assert o.changes.rollback(step) is not None
    assert log.read_bytes() == LINE * 20_000
    assert list_reclaimed(o.site, o.journal) == ()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (EffectState.INTENDED, "is in doubt"),
        (EffectState.ROLLING_BACK, "is in doubt"),
        (EffectState.ROLLBACK_FAILED, "taking it back failed, so this may be the only copy"),
    ],
)
def test_it_stays_while_it_may_be_the_only_copy(
    orchestrator: Orchestrator, tmp_path: Path, state: EffectState, said: str
) -> None:
    o = orchestrator
    step = o.journal.steps.get(reclaim(o, tmp_path / "web.log"))
    o.journal.incidents.set_status(step.incident_id, IncidentStatus.ESCALATED, summary="handed over")
    with o.journal.store.transaction() as connection:
        connection.execute(update(schema.effects).values(state=state.value))
    with pytest.raises(RetentionError, match=said):
        release_reclaimed(o.site, o.journal, step.id, by="ann")
    with o.journal.store.transaction() as connection:
        connection.execute(update(schema.effects).values(state=EffectState.DONE.value))
    release_reclaimed(o.site, o.journal, step.id, by="ann")


def put(root: Path, key: str, *, stage: Stage = Stage.CUT) -> Quarantine:
    entry = Entry(path="/srv/a.log", device="1", inode="2", begin=0, end=4096, stage=stage)
    quarantine = Quarantine(root, key)
    quarantine.begin((entry,))
    quarantine.copy_of(0).write_bytes(b"packed")
    return quarantine


def shared(o: Orchestrator, rooms: Path) -> Site:
    """The site with a folder that several homes use."""
    known = builtin_registry()
    others = [action for action in known.actions if action.name != DiskReclaim.name]
    return replace(o.site, registry=Registry([*known.facts, *others, DiskReclaim(rooms=(rooms,))]))


def test_another_home_s_is_listed_and_stays(tmp_path: Path, orchestrator: Orchestrator) -> None:
    """Folders below /var/tmp are shared by all homes of a user."""
    o, rooms = orchestrator, tmp_path / "rooms"
    for root in (rooms, o.site.home / "hosts" / "gone" / "quarantine"):
        put(root, f"INC-OLD-S{len(root.parts)}")
    put(rooms, "INC-PRUNED-S1")
    with o.journal.store.transaction() as connection:
        connection.execute(schema.meta.insert().values(name="used:INC-PRUNED", value=""))
    site = shared(o, rooms)
    found = list_reclaimed(site, o.journal)
    (theirs,) = (one for one in found if one.kept)
    assert theirs.kept == "this store knows no such step, so it may be another home's"
    assert theirs.folder.parent == rooms
    with pytest.raises(RetentionError, match="another home's"):
        release_reclaimed(site, o.journal, theirs.step, by="ann")
    for one in found:
        if one is not theirs:
            release_reclaimed(site, o.journal, one.step, by="ann")
    assert [one.step for one in list_reclaimed(site, o.journal)] == [theirs.step]


def test_a_restored_home_lets_nothing_go_that_may_be_the_first_one_s(
    tmp_path: Path, orchestrator: Orchestrator
) -> None:
    o, rooms = orchestrator, tmp_path / "rooms"
    quarantine = put(rooms, "INC-PRUNED-S1")
    with o.journal.store.transaction() as connection:
        connection.execute(schema.meta.insert().values(name="used:INC-PRUNED", value=""))
    os.utime(quarantine.folder, (1, 1))
    o.journal.audit.append(RESTORED, {})
    with pytest.raises(RetentionError, match="restored from a backup since"):
        release_reclaimed(shared(o, rooms), o.journal, "INC-PRUNED-S1", by="ann")


def test_a_step_that_moved_elsewhere_vouches_for_nothing(tmp_path: Path, orchestrator: Orchestrator) -> None:
    o, rooms = orchestrator, tmp_path / "rooms"
    step = reclaim(o, tmp_path / "web.log")
    put(rooms, step)
    site = shared(o, rooms)
    assert {(one.folder.parent == rooms, one.incident == "") for one in list_reclaimed(site, o.journal)} == {
        (True, True),
        (False, False),
    }


def test_folders_that_others_could_have_laid_out_are_passed_over(
    tmp_path: Path, orchestrator: Orchestrator
) -> None:
    o, rooms, real = orchestrator, tmp_path / "rooms", tmp_path / "real"
    put(real, "INC-A-S1")
    site = shared(o, rooms)
    rooms.symlink_to(real)
    assert list_reclaimed(site, o.journal) == ()
    rooms.unlink()
    real.rename(rooms)
    assert len(list_reclaimed(site, o.journal)) == 1
    rooms.chmod(0o770)
    assert list_reclaimed(site, o.journal) == ()


def test_remains_of_a_copy_are_listed_and_strange_files_are_not(
    orchestrator: Orchestrator, tmp_path: Path
) -> None:
    """A crash while gigabytes are copied leaves them, and nothing was cut."""
    o, rooms = orchestrator, tmp_path / "rooms"
    put(rooms, "INC-A-S1", stage=Stage.PENDING)
    (rooms / "notes.txt").write_text("mine")
    (rooms / "empty").mkdir()
    assert [one.step for one in list_reclaimed(shared(o, rooms), o.journal)] == ["INC-A-S1"]


def test_a_damaged_one_is_listed_with_its_place(orchestrator: Orchestrator, tmp_path: Path) -> None:
    o = orchestrator
    step = reclaim(o, tmp_path / "web.log")
    (found,) = list_reclaimed(o.site, o.journal)
    (found.folder / "manifest.json").write_text("{")
    (damaged,) = list_reclaimed(o.site, o.journal)
    assert (damaged.step, damaged.files) == (step, ())
    assert "manifest.json' cannot be read" in damaged.kept


def test_the_commands_list_and_release(
    orchestrator: Orchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    o = orchestrator
    monkeypatch.setenv("WATCHKEEPER_HOME", str(o.site.home))
    assert "nothing that was moved away is left" in invoke("list").stdout
    step = reclaim(o, tmp_path / "web.log")
    assert "has not ended" in invoke("list").stdout
    refused = invoke("release", step)
    assert refused.exit_code == 2
    assert "has not ended" in refused.stderr
    o.journal.incidents.set_status(o.journal.steps.get(step).incident_id, IncidentStatus.CLOSED, summary="")
    (told,) = json.loads(invoke("list", "--json").stdout)
    assert (told["step"], told["kept"]) == (step, "")
    assert "the older content of 1 log" in invoke("release", step).stdout
    assert json.loads(invoke("list", "--json").stdout) == []


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(build_app(), ["reclaimed", *arguments])
