"""A yes is for exactly what was shown: where anything changed before it is used, nothing is done."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from tests.lamp import ALERT, folder_in_memory
from tests.unit.test_changes import build
from watchkeeper import Inventory
from watchkeeper.runtime import schema
from watchkeeper.runtime.approvals import Answer
from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.errors import ApprovalError
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.ledger import EffectState
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.site import Site
from watchkeeper.tools.archive import ConfigArchive
from watchkeeper.tools.builtin import builtin_registry
from watchkeeper.tools.errors import DriftError

ASK = "{version: 1, rules: [{name: one, match: {tools: ['*']}, decision: ask, reason: r}]}"
ASK_MORE = "{version: 1, rules: [{name: one, match: {tools: ['*']}, decision: ask, reason: other}]}"


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


def test_one_changed_argument_voids_a_yes(home: Path) -> None:
    world = build(home, switch="dim")
    step, approval = world.approved()
    forged = world.journal.steps.get(step.id).model_copy(update={"arguments": {"position": "off"}})
    with world.journal.store.transaction() as connection:
        connection.execute(
            update(schema.steps).where(schema.steps.c.id == step.id).values(body=forged.model_dump_json())
        )
    with pytest.raises(DriftError, match="its tool, arguments or the policy changed since it was planned"):
        world.changes.apply(step.id, approval.id)
    assert set(world.lamp.changes()) == {"somebody"}


def test_another_policy_voids_a_yes(home: Path) -> None:
    world = build(home, rules=ASK)
    step, approval = world.approved()
    again = build(home, rules=ASK_MORE)
    with pytest.raises(DriftError, match="the policy changed"):
        again.changes.apply(step.id, approval.id)
    assert again.effect(step) is EffectState.NONE


def test_another_state_of_the_target_voids_a_yes(home: Path) -> None:
    world = build(home)
    step, approval = world.approved()
    world.lamp.put("switch", "dim")
    with pytest.raises(DriftError, match="the target changed since it was planned: switch"):
        world.changes.apply(step.id, approval.id)
    assert world.effect(step) is EffectState.NONE


def test_a_yes_that_was_used_is_not_used_for_another_step_of_the_same_action(home: Path) -> None:
    world = build(home)
    step, approval = world.approved()
    world.changes.apply(step.id, approval.id)
    world.lamp.put("switch", "off")
    other = world.propose(key="again")
    world.changes.decide(other.id)
    with pytest.raises(ApprovalError, match="an approval is good for one time"):
        world.changes.apply(other.id, approval.id)
    assert world.effect(other) is EffectState.NONE


def test_a_late_answer_and_a_late_use_are_refused(home: Path) -> None:
    moment = [datetime(2026, 11, 23, 12, tzinfo=UTC)]
    world = build(home, now=lambda: moment[0])
    step, asked = world.asked()
    moment[0] = asked.expires_at
    for answer in (Answer.APPROVE, Answer.REJECT, Answer.TERMINATE):
        with pytest.raises(ApprovalError, match="expired unanswered at 2026-11-23 12:01:00"):
            world.journal.answer(asked.id, answer, by="bob", reason="why")
    moment[0] = asked.expires_at - timedelta(seconds=1)
    yes = world.journal.answer(asked.id, Answer.APPROVE, by="bob")
    assert yes.use_by is not None
    moment[0] = yes.use_by
    with pytest.raises(ApprovalError, match="not used before"):
        world.changes.apply(step.id, asked.id)
    assert world.effect(step) is EffectState.NONE


def test_a_file_that_changed_on_the_host_voids_the_yes_to_restore_it(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "app.ini"
    path.write_text("[web]\nport = 8080\n")
    service = {
        "name": "web",
        "supervisor": {"kind": "supervisord", "socket": str(tmp_path / "none.sock")},
        "config": [str(path)],
    }
    hosts = Inventory.model_validate({"hosts": [{"name": "here", "services": [service]}]})
    registry = builtin_registry()
    home.mkdir()
    with Journal(home) as journal:
        site = Site(hosts, registry, Policy.default(registry), home)
        ConfigArchive.of(site.target("here")).record(path, now=datetime(2026, 11, 22, 8, tzinfo=UTC))
        path.write_text("[web]\nport = 80\n")
        changes = Changes(site, journal, requester="ann", approval_ttl=60)
        step = changes.propose(
            journal.open(ALERT).id,
            host="here",
            action="config.restore",
            arguments={"path": str(path)},
            key="k",
        )
        changes.decide(step.id)
        asked = changes.ask(step.id)
        assert "-port = 80" in asked.diff
        journal.answer(asked.id, Answer.APPROVE, by="bob")
        path.write_text("[web]\nport = 81\n")
        with pytest.raises(DriftError, match="the target changed since it was planned"):
            changes.apply(step.id, asked.id)
    assert path.read_text() == "[web]\nport = 81\n"
