"""The lifecycle of a version: killed anywhere it promotes once; refused, it leaves aliases as they were."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.lamp import folder_in_memory
from tests.lifecycles import (
    ALLOW,
    DENY_PROMOTION,
    HOST,
    NAME,
    Cut,
    PartialCut,
    answer,
    fail,
    first_version,
    orchestrator,
    request,
    to_the_end,
    train,
    write_rows,
)
from tests.predictor_homes import empty_home
from tests.threshold import make
from watchkeeper import Orchestrator, ProbeAnswer, ScriptedEngine
from watchkeeper.cli.predictors import app as predictors
from watchkeeper.models.interface import ChoiceRequest
from watchkeeper.runtime.approvals import ApprovalKind, action_digest
from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.checkpoints import Checkpoints
from watchkeeper.runtime.clock import utc_now
from watchkeeper.runtime.drift_alerts import drift_alert, serving_alert
from watchkeeper.runtime.errors import ConfigurationError, IncidentBusyError, StoreError
from watchkeeper.runtime.handing_over import hand_over
from watchkeeper.runtime.incident_jobs import RUN, IncidentRuns, run_key
from watchkeeper.runtime.jobs import Jobs
from watchkeeper.runtime.ledger import Effect, Ledger
from watchkeeper.runtime.lifecycle_rules import Retraining
from watchkeeper.runtime.lifecycles import TOOLS
from watchkeeper.runtime.policy_types import PolicyDecision
from watchkeeper.runtime.restoring_records import make_safe
from watchkeeper.runtime.training import TrainingJobs
from watchkeeper.runtime.worker import Worker
from watchkeeper.tools.predictors.recording import FILE
from watchkeeper.tools.predictors.watching import DriftReport
from watchkeeper.tools.training.interface import Evaluation
from watchkeeper.tools.versions import Versions

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which a version answers; to be copied."""
    folder = tmp_path_factory.mktemp("prepared")
    return first_version(Path(shutil.copytree(empty_home(), folder / "home")), folder / "data")


@pytest.fixture
def base(prepared: Path) -> Iterator[Path]:
    with folder_in_memory() as folder:
        shutil.copytree(prepared, folder / "home")
        yield folder


def moves(home: Path) -> list[tuple[str, int | None, int | None]]:
    return [(move.alias, move.before, move.after) for move in Versions(home).history(NAME)]


PROMOTED = [("champion", None, 1), ("champion", 1, 2)]


def test_a_better_version_is_promoted_after_two_yeses(base: Path) -> None:
    with orchestrator(base / "home") as o:
        incident = o.retrain(request(base)).id
        assert to_the_end(o, incident, says=["approve", "approve"]) == "promoted"
        report = o.report(incident)
    assert report.outcome == "resolved"
    assert [step.action for step in report.steps] == ["job.submit", "predictor.promote"]
    assert moves(base / "home") == PROMOTED
    assert "written by the model" not in (base / "home" / "reports" / f"{incident}.md").read_text()
    text = (base / "home" / "lifecycles" / incident / "report.md").read_text()
    assert "busy: promoted" in text
    assert (base / "home" / "lifecycles" / incident / "comparison.png").stat().st_size > 1000


def test_cut_off_after_every_node_it_trains_and_promotes_once(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process keeps what one node found, and dies before it keeps what the next one did."""
    home = base / "home"
    with orchestrator(home, rules=ALLOW) as o:
        incident = o.retrain(request(base)).id
    processes, calls, original = 0, 0, Checkpoints.put

    def put(checkpoints: Checkpoints, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise sqlite3.OperationalError("the power went")
        return original(checkpoints, *arguments)

    monkeypatch.setattr(Checkpoints, "put", put)
    while processes < 60:
        processes, calls = processes + 1, 0
        with orchestrator(home, rules=ALLOW) as o:
            try:
                assert to_the_end(o, incident) == "promoted"
                break
            except (StoreError, sqlite3.Error):
                continue
    assert 20 <= processes < 60
    with orchestrator(home, rules=ALLOW) as o:
        assert [step.status.value for step in o.report(incident).steps] == ["verified", "verified"]
        assert len(o.site.jobs.list()) == 1  # type: ignore[union-attr]
    assert moves(home) == PROMOTED


def cut_off_at(o: Orchestrator, action: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a lifecycle until the outcome of an action, which no probe can tell, could not be written down."""
    complete = Ledger.complete

    def die(ledger: Ledger, key: str, **outcome: Any) -> Effect:
        if o.journal.steps.get(key.partition(":")[0]).action == action:
            raise StoreError("the power went")
        return complete(ledger, key, **outcome)

    monkeypatch.setattr(type(o.site.registry.action(action)), "probe", lambda *_: ProbeAnswer.UNKNOWN)
    incident = o.retrain(request(o.settings.home.parent)).id
    with monkeypatch.context() as cut:
        cut.setattr(Ledger, "complete", die)
        with pytest.raises(StoreError, match="power"):
            to_the_end(o, incident)
    return incident


@pytest.mark.parametrize("action", ["job.submit", "predictor.promote"])
def test_a_change_in_doubt_is_asked_about_and_the_answer_goes_on(
    base: Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with orchestrator(base / "home", rules=ALLOW) as o:
        incident = cut_off_at(o, action, monkeypatch)
        assert to_the_end(o, incident, says=["done"]) == "promoted"
        (asked,) = o.journal.approvals.list(incident_id=incident)
        assert asked.kind is ApprovalKind.IN_DOUBT
        assert [effect.settled_by for effect in o.journal.ledger.list(incident)].count(asked.decided_by) == 1
        assert len(o.site.jobs.list()) == 1  # type: ignore[union-attr]
    assert moves(base / "home") == PROMOTED


def test_a_change_in_doubt_about_which_nobody_answers_is_handed_over_and_may_be_settled_later(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with orchestrator(base / "home", rules=ALLOW) as o:
        incident = cut_off_at(o, "predictor.promote", monkeypatch)
        list(o.resume(incident, wait=False))
        (asked,) = o.journal.approvals.list(incident_id=incident)
        o.journal.approvals.lapse(asked.id)
        assert to_the_end(o, incident) == "escalated"
        assert "nobody said whether it was done" in o.report(incident).reason
        o.answer(asked.id, "done")
        assert not o.journal.ledger.in_doubt(incident)


def test_after_a_restore_what_was_planned_is_planned_again_under_another_id(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, original = base / "home", Changes.decide

    def decide(changes: Changes, step_id: str) -> PolicyDecision:
        if step_id.endswith("-S2"):
            raise StoreError("the power went")
        return original(changes, step_id)

    with orchestrator(home, rules=ALLOW) as o:
        incident = o.retrain(request(base)).id
        with monkeypatch.context() as patched:
            patched.setattr(Changes, "decide", decide)
            with pytest.raises(StoreError, match="the power went"):
                to_the_end(o, incident)
        make_safe(o.journal.store, utc_now())
    with orchestrator(home, rules=ALLOW) as o:
        assert to_the_end(o, incident) == "promoted"
        steps = [(step.id.rpartition("-")[2], step.status.value) for step in o.report(incident).steps]
    assert steps == [("S1", "verified"), ("S2", "refused"), ("S1003", "verified")]
    assert moves(home) == PROMOTED


def test_workers_go_on_with_what_was_left_to_them(base: Path) -> None:
    home = base / "home"
    with orchestrator(home, rules=ALLOW) as o:
        incident = o.retrain(request(base, live={"labels": 0}), queue=True).id
        jobs = Jobs(o.journal.store)
        for _ in range(3):
            Worker(jobs, o.journal.halts, {RUN: IncidentRuns(o)}).run(once=True)
            train(o)
            jobs.hurry(run_key(incident))
        assert len(jobs.list(key=run_key(incident))) == 1
        assert o.report(incident).outcome == "resolved"
    assert moves(home) == PROMOTED


def test_what_waits_for_a_yes_goes_on_in_another_process(base: Path) -> None:
    home = base / "home"
    with orchestrator(home) as o:
        incident = o.retrain(request(base)).id
        list(o.resume(incident, wait=False))
    with orchestrator(home) as o:
        assert to_the_end(o, incident, says=["approve", "approve"]) == "promoted"
    assert moves(home) == PROMOTED


def test_a_live_metric_that_falls_takes_the_promotion_back_exactly(base: Path) -> None:
    home = base / "home"
    with orchestrator(home, rules=ALLOW) as o:
        incident = o.retrain(request(base)).id
        assert to_the_end(o, incident, live=0.5) == "rolled-back"
        report = o.report(incident)
    assert report.outcome == "escalated"
    assert Versions(home).aliases(NAME) == {"champion": 1}
    assert moves(home) == [*PROMOTED, ("champion", 2, 1)]


def test_one_wrong_answer_of_one_label_takes_nothing_back(base: Path) -> None:
    home = base / "home"
    with orchestrator(home, rules=ALLOW) as o:
        incident = o.retrain(request(base, live={"labels": 40, "seconds": 1})).id

        def asked(role: str) -> None:
            answer(o, right=0.0, role=role, count=1)
            time.sleep(0.3)

        assert to_the_end(o, incident, asked=asked) == "promoted"
        report = o.report(incident)
    assert "0.0% of 1 labelled answer right" in report.summary
    assert "were wanted, and the time is over" in report.summary


@pytest.mark.parametrize(("held_out", "end"), [(30, "promoted"), (200, "rolled-back")])
def test_few_held_out_rows_promise_too_little_to_take_anything_back(
    base: Path, held_out: int, end: str
) -> None:
    with orchestrator(base / "home", rules=ALLOW) as o:
        asked = request(base, live={"labels": 100})
        write_rows(asked.held_out, cut=0.6, count=held_out, seed=4)
        incident = o.retrain(asked).id
        assert to_the_end(o, incident, asked=lambda role: answer(o, right=0.85, count=100, role=role)) == end


def test_a_version_that_fails_is_taken_back_long_before_any_label_could_say_so(base: Path) -> None:
    home = base / "home"
    with orchestrator(home, rules=ALLOW) as o:
        incident = o.retrain(request(base)).id
        assert to_the_end(o, incident, asked=lambda role: fail(o, role=role)) == "rolled-back"
        report = o.report(incident)
    assert "it fails on live requests: it failed at 40 of 40 rows, and 20% may" in report.summary
    assert moves(home) == [*PROMOTED, ("champion", 2, 1)]


def test_a_few_rows_that_fail_take_nothing_back(base: Path) -> None:
    with orchestrator(base / "home", rules=ALLOW) as o:

        def asked(role: str) -> None:
            fail(o, rows=4, role=role)
            answer(o, right=1.0, role=role)

        incident = o.retrain(request(base)).id
        assert to_the_end(o, incident, asked=asked) == "promoted"
        assert "it failed at 4 of 44 rows" in o.report(incident).summary


def test_a_challenger_that_fails_beside_right_answers_is_refused(base: Path) -> None:
    with orchestrator(base / "home", rules=ALLOW) as o:

        def asked(role: str) -> None:
            fail(o, role=role)
            answer(o, right=1.0, role=role)

        incident = o.retrain(request(base, trial={"labels": 40})).id
        assert to_the_end(o, incident, asked=asked) == "refused: worse"
        assert "it failed at 40 of 80 rows" in o.report(incident).summary
    assert moves(base / "home")[1:] == [("challenger", None, 2), ("challenger", 2, None)]


@pytest.mark.parametrize(("trial", "answers"), [({"labels": 0}, 2), ({"labels": 40}, 1)])
def test_predictions_that_cannot_be_read_call_people(base: Path, trial: dict[str, Any], answers: int) -> None:
    home = base / "home"
    with orchestrator(home, rules=ALLOW) as o:
        incident = o.retrain(request(base, trial=trial)).id
        damaged = home / "predictors" / FILE
        assert to_the_end(o, incident, asked=lambda _: damaged.write_bytes(b"no database")) == "escalated"
        report = o.report(incident)
    assert report.outcome == "escalated"
    assert f"the predictions in {str(damaged)!r} cannot be read" in report.summary
    assert Versions(home).aliases(NAME) == {"champion": answers}


def test_a_challenger_shows_itself_on_live_requests_first(base: Path) -> None:
    home = base / "home"
    trial = {"labels": 40}
    with orchestrator(home, rules=ALLOW) as o:
        incident = o.retrain(request(base, trial=trial)).id
        assert to_the_end(o, incident, trial=0.5) == "refused: worse"
        assert Versions(home).aliases(NAME) == {"champion": 1}
        incident = o.retrain(request(base, trial=trial, cut=0.55, held_out_cut=0.55)).id
        assert to_the_end(o, incident) == "promoted"
    assert Versions(home).aliases(NAME) == {"champion": 3}
    assert moves(home)[1:] == [
        ("challenger", None, 2),
        ("challenger", 2, None),
        ("challenger", None, 3),
        ("champion", 1, 3),
        ("challenger", 3, None),
    ]


@pytest.mark.parametrize(
    ("how", "outcome", "trained"),
    [
        ({"cut": 0.9}, "refused: worse", True),
        ({"compare": {"gain": 0.9}}, "refused: worse", True),
        ({"data": {"rows": 1000}}, "refused: bad data", False),
    ],
)
def test_a_refused_challenger_leaves_everything_as_it_was(
    base: Path, how: dict[str, Any], outcome: str, trained: bool
) -> None:
    home = base / "home"
    with orchestrator(home, rules=ALLOW) as o:
        incident = o.retrain(request(base, **({"held_out_cut": 0.2} if "cut" in how else {}), **how)).id
        assert to_the_end(o, incident) == outcome
        assert len(o.site.jobs.list()) == trained  # type: ignore[union-attr]
        assert o.report(incident).outcome == "closed"
    assert (moves(home), len(Versions(home).list(NAME))) == ([("champion", None, 1)], 1)


@pytest.mark.parametrize(
    ("changed", "outcome"), [("the policy", "refused: changed"), ("the data", "refused: bad data")]
)
def test_data_are_not_blamed_for_a_policy_that_changed_before_the_training(
    base: Path, changed: str, outcome: str
) -> None:
    home = base / "home"
    with orchestrator(home, rules=ASK) as o:
        incident = o.retrain(wanted := request(base)).id
        list(o.resume(incident, wait=False))
        (asked,) = o.journal.approvals.list(incident_id=incident)
        o.answer(asked.id, "approve")
    rules = ASK
    if changed == "the policy":
        rules = f"{ASK}bias: {{equalized_odds: 0.9}}\n"
    else:
        wanted.job.data.write_text(wanted.job.data.read_text() + "0.5,no\n")
    with orchestrator(home, rules=rules) as o:
        assert to_the_end(o, incident) == outcome


def test_labels_that_the_champion_never_learned_are_told(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def beside(trainer: Cut, *scored: Any) -> Evaluation:
        return trainer.evaluate(*scored).model_copy(update={"unlearned": {"idle": 12}})

    monkeypatch.setattr(Cut, "evaluate_beside", beside)
    with orchestrator(base / "home", rules=ALLOW) as o:
        incident = o.retrain(request(base)).id
        assert to_the_end(o, incident) == "promoted"
    text = (base / "home" / "lifecycles" / incident / "report.md").read_text()
    assert "the champion got 12 examples wrong whose labels it never learned" in text
    assert "- idle (12)" in text


def test_data_that_it_would_be_judged_by_are_not_learned_from(base: Path) -> None:
    with orchestrator(base / "home", rules=ALLOW) as o:
        asked = request(base)
        incident = o.retrain(asked.model_copy(update={"held_out": asked.job.data})).id
        assert to_the_end(o, incident) == "refused: bad data"


def test_held_out_rows_among_those_to_learn_from_are_found_in_any_order(base: Path) -> None:
    with orchestrator(base / "home", rules=ALLOW) as o:
        asked = request(base)
        rows = [*asked.job.data.read_text().splitlines()[1:], *asked.held_out.read_text().splitlines()[1:]]
        asked.job.data.write_text("\n".join(["load,busy", *sorted(rows)]) + "\n")
        incident = o.retrain(asked).id
        assert to_the_end(o, incident) == "refused: bad data"
        assert "200 of 200 held-out rows stand in the data to learn from" in o.report(incident).summary
        assert not o.site.jobs.list()  # type: ignore[union-attr]


def test_without_fairlearn_nothing_is_trained_that_is_to_be_tested_for_bias(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fairlearn", None)  # as if it were not installed
    with orchestrator(base / "home", rules=ALLOW) as o:
        incident = o.retrain(request(base, trainer=PartialCut, bias={"columns": ["site"]})).id
        assert to_the_end(o, incident) == "escalated"
        report = o.report(incident)
        assert "pip install 'watchkeeper[fairness]'" in report.reason
        assert report.steps == ()
        assert o.site.jobs is not None
        assert o.site.jobs.list() == ()


def test_groups_that_nobody_could_compare_are_refused_where_that_is_the_rule(base: Path) -> None:
    rules = f"{ALLOW}bias: {{undecided: refuse}}\n"
    with orchestrator(base / "home", rules=rules) as o:
        incident = o.retrain(request(base, bias={"columns": ["site"]})).id
        assert to_the_end(o, incident) == "refused: biased"
        assert "by site: not told apart" in o.report(incident).summary
    assert moves(base / "home") == [("champion", None, 1)]


def test_the_policy_says_how_differently_groups_may_be_treated(base: Path) -> None:
    home = base / "home"
    with orchestrator(home, rules=ALLOW) as o:
        incident = o.retrain(request(base, trainer=PartialCut, explained=0)).id
        assert to_the_end(o, incident) == "refused: biased"
        assert "between north and south" in o.report(incident).summary
    assert moves(home) == [("champion", None, 1)]
    with orchestrator(home, rules=f"{ALLOW}bias: {{equalized_odds: 0.9}}\n") as o:
        incident = o.retrain(request(base, trainer=PartialCut, explained=0)).id
        assert to_the_end(o, incident) == "promoted"
    text = (home / "lifecycles" / incident / "report.md").read_text()
    assert "The policy allows: equalized odds 0.9" in text


def asked_to_promote(o: Orchestrator, wanted: Retraining) -> str:
    """Go as far as the question whether the new version may answer, and return the incident."""
    incident = o.retrain(wanted).id
    list(o.resume(incident, wait=False))
    (asked,) = o.journal.approvals.list(incident_id=incident)
    o.answer(asked.id, "approve")
    list(o.resume(incident, wait=False))
    train(o)
    list(o.resume(incident, wait=False))
    return incident


ASK = ALLOW.replace("decision: allow", "decision: ask")


def test_a_limit_that_changes_after_the_yes_has_it_refused(base: Path) -> None:
    home = base / "home"
    with orchestrator(home, rules=f"{ASK}bias: {{equalized_odds: 0.9}}\n") as o:
        incident = asked_to_promote(o, request(base, trainer=PartialCut, explained=0))
        asked, _ = o.journal.approvals.list(incident_id=incident)
        step = o.journal.steps.get(asked.step_id)
        assert step.bias is not None
        assert {one.column for one in step.bias.differences} == {"site"}
        bound = action_digest(
            tool=step.action,
            version=step.version,
            arguments=step.arguments,
            host=step.host,
            preconditions=step.plan.preconditions,
            policy_digest=o.site.policy.digest,
            bias=step.bias.bound(),
        )
        assert asked.digest == bound
        o.answer(asked.id, "approve")
    with orchestrator(home, rules=f"{ASK}bias: {{equalized_odds: 0.8}}\n") as o:
        assert to_the_end(o, incident) == "refused: changed"
        assert "the policy changed since it was planned" in o.report(incident).summary
    assert moves(home) == [("champion", None, 1)]


def test_a_limit_that_changes_before_the_question_is_the_one_that_counts(base: Path) -> None:
    home = base / "home"
    with orchestrator(home, rules=f"{ALLOW}bias: {{equalized_odds: 0.9}}\n") as o:
        incident = o.retrain(request(base, trainer=PartialCut, explained=0, trial={"labels": 40})).id
        for _ in range(8):
            list(o.resume(incident, wait=False))
            if "challenger" in Versions(home).aliases(NAME):
                break
            train(o)
    with orchestrator(home, rules=ALLOW) as o:
        assert to_the_end(o, incident) == "refused: by policy"
        assert "it treats groups more differently than the policy allows" in o.report(incident).summary
    assert moves(home)[-1][0] == "challenger"
    assert Versions(home).aliases(NAME) == {"champion": 1}


def test_a_person_and_a_policy_may_refuse(base: Path) -> None:
    home = base / "home"
    with orchestrator(home) as o:
        incident = o.retrain(request(base)).id
        assert to_the_end(o, incident, says=["approve", "reject"]) == "refused: by a person"
    with orchestrator(home, rules=DENY_PROMOTION) as o:
        incident = o.retrain(request(base)).id
        assert to_the_end(o, incident) == "refused: by policy"
    assert moves(home) == [("champion", None, 1)]


def test_a_yes_holds_for_the_files_that_were_judged_alone(base: Path) -> None:
    home = base / "home"
    with orchestrator(home) as o:
        incident = asked_to_promote(o, request(base))
        asked, _ = o.journal.approvals.list(incident_id=incident)
        o.answer(asked.id, "approve")
        (Versions(home).get(NAME, 2).folder / "threshold.json").write_text('{"threshold": 0.0}')
        assert to_the_end(o, incident) == "refused: changed"
    assert Versions(home).aliases(NAME) == {"champion": 1}


def test_a_yes_does_not_hold_once_another_version_answers(base: Path, tmp_path: Path) -> None:
    home = base / "home"
    with orchestrator(home) as o:
        incident = asked_to_promote(o, request(base))
        versions = Versions(home)
        other = versions.register(NAME, make(tmp_path / "other", 0.5))
        versions.promote(NAME, other.number, by="bob")
        assert to_the_end(o, incident, says=["approve"]) == "refused: changed"
    assert Versions(home).aliases(NAME) == {"champion": other.number}


def test_held_out_data_that_are_changed_meanwhile_judge_nothing(base: Path) -> None:
    with orchestrator(base / "home", rules=ALLOW) as o:
        asked = request(base)
        incident = o.retrain(asked).id
        list(o.resume(incident, wait=False))
        asked.held_out.write_text("load,busy\n" + "0.4000,no\n" * 200)  # easy, and wrong for the champion
        assert to_the_end(o, incident) == "refused: changed"
    assert moves(base / "home") == [("champion", None, 1)]
    assert len(Versions(base / "home").list(NAME)) == 1


def test_a_training_job_that_is_removed_ends_it(base: Path) -> None:
    home = base / "home"
    with orchestrator(home, rules=ALLOW) as o:
        incident = o.retrain(request(base)).id
        list(o.resume(incident, wait=False))
        jobs = TrainingJobs(o.journal.store, o.journal.home, o.journal.audit)
        (job,) = jobs.list()
        jobs.cancel(job.id, by="ann")
        jobs.remove(job.id, by="ann")
        assert to_the_end(o, incident) == "refused: training failed"
        assert f"{job.id} was removed" in o.report(incident).summary
    assert moves(home) == [("champion", None, 1)]


@pytest.mark.parametrize(("trial", "answers"), [({"labels": 0}, 2), ({"labels": 40}, 1)])
def test_labels_that_fit_no_answer_call_people(base: Path, trial: dict[str, Any], answers: int) -> None:
    home = base / "home"
    with orchestrator(home, rules=ALLOW) as o:
        incident = o.retrain(request(base, label_column="queue", trial=trial)).id
        assert to_the_end(o, incident) == "escalated"
        report = o.report(incident)
    assert report.outcome == "escalated"
    assert "set label_column (answers of 'busy' have no column 'queue'; there are: busy" in report.summary
    assert Versions(home).aliases(NAME) == {"champion": answers}


def test_losses_promise_nothing_of_labels_so_a_floor_is_needed_before_anything_is_trained(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = base / "home"
    monkeypatch.setattr(Cut, "promises", False)
    with orchestrator(home) as o:
        for rules in ({"live": {"labels": 40}}, {"live": {"labels": 0}, "trial": {"labels": 40}}):
            with pytest.raises(ConfigurationError, match=r"predictor 'busy': .*set live\.floor, the share"):
                o.retrain(request(base, **rules))
        assert TrainingJobs(o.journal.store, o.journal.home, o.journal.audit).list() == ()
        incident = o.retrain(request(base, live={"labels": 40, "floor": 0.6})).id
        assert to_the_end(o, incident, live=0.2, says=["approve", "approve"]) == "rolled-back"
    assert Versions(home).get(NAME, 2).promised is None


def test_where_drift_asks_for_it_people_are_called_to_set_a_floor(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with orchestrator(base / "home") as o:
        incident = o.retrain(request(base)).id
        monkeypatch.setattr(Cut, "promises", False)
        assert to_the_end(o, incident) == "escalated"
        assert "set live.floor" in o.report(incident).reason
        assert TrainingJobs(o.journal.store, o.journal.home, o.journal.audit).list() == ()


def test_one_predictor_is_retrained_once_at_a_time(base: Path) -> None:
    with orchestrator(base / "home") as o:
        first = o.retrain(request(base)).id
        with pytest.raises(IncidentBusyError, match=f"--resume {first}"):
            o.retrain(request(base))


def test_the_command_line_retrains_and_says_how_it_ended(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, asked = base / "home", request(base)
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    (home / "inventory.yaml").write_text(f"hosts: [{{name: {HOST}}}]")
    spec = asked.job.model_copy(update={"modules": ROOT}).model_dump(mode="json", exclude_none=True)
    (base / "job.yaml").write_text(yaml.safe_dump(spec))
    words = ["retrain", NAME, "--job", str(base / "job.yaml"), "--held-out", str(asked.held_out)]
    options = ["--watch", "0", "--solo", "--json", "--approve"]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("watchkeeper.cli.run.answerer_of", lambda *_: interrupted)
        stopped = CliRunner().invoke(predictors, [*words, *options, "ask"])
    assert stopped.exit_code == 130
    incident = json.loads(stopped.stdout)["incident"]
    assert f"predictors retrain --resume {incident}" in " ".join(stopped.stderr.split())
    refused = CliRunner().invoke(predictors, ["retrain", "--resume", incident, *options, "no"])
    assert refused.exit_code == 1, refused.output
    assert json.loads(refused.stdout)["outcome"] == "refused: by a person"
    done = CliRunner().invoke(predictors, [*words, *options, "yes"])
    assert done.exit_code == 0, done.output
    for line in ("check data 200 rows", "waits JOB-", "compare accuracy", "card version 2 of busy"):
        assert line in " ".join(done.stderr.split())
    said = json.loads(done.stdout)
    assert (said["outcome"], said["version"], said["status"]) == ("promoted", 2, "resolved")
    assert Path(said["report"]).is_file()
    assert moves(home) == PROMOTED
    again = CliRunner().invoke(predictors, ["retrain", NAME, "--data", str(asked.job.data)])
    assert again.exit_code == 2
    assert "--held-out" in again.output


def test_one_that_was_handed_to_people_outside_of_its_graph_is_not_said_to_wait(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, asked = base / "home", request(base)
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    (home / "inventory.yaml").write_text(f"hosts: [{{name: {HOST}}}]")
    with orchestrator(home) as o:
        incident = o.retrain(asked).id
        list(o.resume(incident, wait=False))
        hand_over(o, incident, "no worker could go on with it")
    told = CliRunner().invoke(predictors, ["retrain", "--resume", incident, "--solo"])
    assert told.exit_code == 4, told.output
    assert f"{incident} was handed to people: no worker could go on with it" in told.stdout
    said = CliRunner().invoke(predictors, ["retrain", "--resume", incident, "--solo", "--json"])
    assert json.loads(said.stdout)["reason"] == "no worker could go on with it"


# -- drift -------------------------------------------------------------------------------------------------


def drifted(
    base: Path, *, probabilities: list[float], sure: float = 0.5, fails: bool = False
) -> tuple[str, str, list[str]]:
    """Have an alert of drift, or of failures, handled by an agent that is so sure.

    Returns:
        The outcome, the status, and what was offered.
    """
    offered: list[str] = []

    def choose(asked: ChoiceRequest) -> list[float]:
        offered.extend(asked.options)
        return probabilities

    asked = request(base)
    (base / "home" / "job.yaml").write_text(
        yaml.safe_dump(asked.job.model_dump(mode="json", exclude_none=True))
    )
    rules = {"host": HOST, "job": "job.yaml", "held_out": str(asked.held_out), "label_column": "busy"}
    rules |= {"live": {"labels": 0}, "sure": sure}
    (base / "home" / "lifecycle.yaml").write_text(yaml.safe_dump({"predictors": {NAME: rules}}))
    with orchestrator(base / "home", rules=ALLOW, engine=ScriptedEngine(choose=choose)) as o:
        answer(o, right=0.4, count=100)
        report = DriftReport(predictor=NAME, version=1, rows=100, signals=("quality",))
        alert = drift_alert(report, host=HOST)
        if fails:
            fail(o, rows=100)
            alert = serving_alert(report, "errors", host=HOST)
        incident = o.open(alert).id
        outcome = to_the_end(o, incident)
        decisions = [(d.role, d.accepted) for d in o.journal.decisions.list(incident)]
        assert decisions == [("curator", max(probabilities) >= sure)]
        return outcome, o.report(incident).outcome, offered


def test_an_agent_that_is_sure_has_a_drifted_predictor_retrained(base: Path) -> None:
    outcome, status, offered = drifted(base, probabilities=[0.8, 0.2])
    assert (outcome, status) == ("promoted", "resolved")
    # It is certainly worse, so waiting is no answer.
    assert [text.split()[1] for text in offered] == ["train", "call"]


def test_a_predictor_that_fails_is_not_retrained_for_that_though_it_is_worse_too(base: Path) -> None:
    outcome, status, offered = drifted(base, probabilities=[1.0], fails=True)
    assert (outcome, status) == ("escalated", "escalated")
    assert [text.split()[1] for text in offered] == ["call"]
    assert moves(base / "home") == [("champion", None, 1)]


def test_an_agent_that_is_unsure_changes_nothing_and_people_are_called(base: Path) -> None:
    outcome, status, _ = drifted(base, probabilities=[0.5, 0.5], sure=0.6)
    assert (outcome, status) == ("escalated", "escalated")
    assert moves(base / "home") == [("champion", None, 1)]


def test_the_watch_submits_one_alert_for_each_episode(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, asked = base / "home", request(base)
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    (home / "inventory.yaml").write_text(f"hosts: [{{name: {HOST}}}]")
    (home / "config.yaml").write_text(yaml.safe_dump({"tools": [TOOLS]}))
    rules = {"host": HOST, "job": "job.yaml", "held_out": str(asked.held_out)}
    (home / "lifecycle.yaml").write_text(yaml.safe_dump({"predictors": {NAME: rules}}))
    with orchestrator(home) as o:
        answer(o, right=1.0)
        quiet = CliRunner().invoke(predictors, ["watch", "--once"])
        assert (quiet.exit_code, quiet.output) == (0, "")
        answer(o, right=0.0, count=200, role="canary")
        told = CliRunner().invoke(predictors, ["watch", "--once"])
        again = CliRunner().invoke(predictors, ["watch", "--once", NAME])
        incidents = o.journal.incidents.list()
    assert (told.exit_code, again.exit_code, again.output) == (0, 0, "")
    assert [incident.id for incident in incidents] == [told.output.split()[-1]]
    other = CliRunner().invoke(predictors, ["watch", "--once", "lazy"])
    assert other.exit_code == 2
    assert "lifecycle.yaml" in other.output
    # One that cannot be looked at keeps nobody from looking at the others.
    both = {"absent": rules, NAME: rules}
    (home / "lifecycle.yaml").write_text(yaml.safe_dump({"predictors": both}, sort_keys=False))
    with orchestrator(home) as o:
        answer(o, right=0.0, count=200, role="canary")
    mixed = CliRunner().invoke(predictors, ["watch", "--once"])
    assert mixed.exit_code == 1
    assert "absent: not looked at: " in mixed.output


def test_a_watched_predictor_whose_host_is_gone_ends_no_watch(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, asked = base / "home", request(base)
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    (home / "inventory.yaml").write_text(f"hosts: [{{name: {HOST}}}]")
    (home / "config.yaml").write_text(yaml.safe_dump({"tools": [TOOLS]}))
    rules = {"host": "gone", "job": "job.yaml", "held_out": str(asked.held_out)}
    (home / "lifecycle.yaml").write_text(yaml.safe_dump({"predictors": {NAME: rules}}))
    with orchestrator(home) as o:
        answer(o, right=1.0)
        answer(o, right=0.0, count=200, role="canary")
        told = CliRunner().invoke(predictors, ["watch", "--once"])
        assert o.journal.incidents.list() == ()
    assert told.exit_code == 1
    assert f"{NAME}: not looked at: " in told.output
    assert "gone" in told.output
