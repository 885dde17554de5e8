"""What people said of diagnoses becomes questions with answers, asked to the byte as they were then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lamp import ALLOW, INVENTORY, Lamp, folder_in_memory, orchestrator, prefers
from tests.unit.test_incident_graph import handle
from watchkeeper import Orchestrator
from watchkeeper.agents.decision import prompt_digest
from watchkeeper.models.calibration_cases import read_cases
from watchkeeper.runtime.context import Context
from watchkeeper.runtime.decisions import DecisionRecord
from watchkeeper.runtime.reviewed_cases import reviewed_cases
from watchkeeper.runtime.reviews import Reviews, ReviewVerdict, write_new

RIGHT, WRONG, UNSURE = ReviewVerdict.RIGHT, ReviewVerdict.WRONG, ReviewVerdict.UNSURE


@pytest.fixture
def handled(tmp_path: Path) -> Iterator[tuple[Orchestrator, list[DecisionRecord]]]:
    """An incident in which the first of three causes was wrong, and the second right."""
    lamp = Lamp.dark(tmp_path, switch="off", bulb="dusty", fuse="hot")
    with (
        folder_in_memory() as folder,
        orchestrator(folder / "home", lamp, prefers("bulb", "switch"), rules=ALLOW) as o,
    ):
        report = handle(o)
        made = o.journal.decisions.list(report.incident.id)
        diagnoses = [d for d in made if d.question == "What is the root cause?" and len(d.options) > 1]
        assert len(diagnoses) > 1
        yield o, diagnoses


def context(o: Orchestrator) -> Context:
    return Context(o.site, o._team, o.journal, o.settings)


def review(
    o: Orchestrator, record: DecisionRecord, verdict: ReviewVerdict, should_be: int | None = None
) -> None:
    Reviews(o.journal.store, o.journal.audit).add(record.id, verdict, by="ann", should_be=should_be)


def test_a_wrong_diagnosis_is_asked_again_with_the_option_that_was_right(
    handled: tuple[Orchestrator, list[DecisionRecord]],
) -> None:
    o, (first, *_) = handled
    texts = [option.text for option in first.options]
    assert "bulb" in first.answer.text
    right = texts.index("the switch was turned off")
    review(o, first, WRONG, right)
    (case,), left_out = reviewed_cases(context(o))
    assert left_out == 0
    assert list(case.options) == texts
    assert case.answer == "the switch was turned off"
    assert case.topic == "switch-off"
    assert prompt_digest(case.corrected().messages) == first.prompt_digest
    assert case.neutral is not None


def test_the_last_review_counts_and_what_nobody_could_tell_is_no_case(
    handled: tuple[Orchestrator, list[DecisionRecord]],
) -> None:
    o, (first, *_) = handled
    review(o, first, RIGHT)
    (case,), _ = reviewed_cases(context(o))
    assert case.answer == first.answer.text
    review(o, first, UNSURE)
    assert reviewed_cases(context(o)) == ((), 0)
    review(o, first, WRONG)  # none of the options was right
    assert reviewed_cases(context(o)) == ((), 0)


def test_what_was_asked_after_an_attempt_is_left_out_and_counted(
    handled: tuple[Orchestrator, list[DecisionRecord]],
) -> None:
    o, (_, second, *_) = handled
    review(o, second, RIGHT)
    assert reviewed_cases(context(o)) == ((), 1)


def test_a_host_that_is_gone_leaves_its_decisions_out(
    handled: tuple[Orchestrator, list[DecisionRecord]],
) -> None:
    o, (first, *_) = handled
    review(o, first, RIGHT)
    gone = INVENTORY.model_copy(update={"hosts": ()})
    there = context(o)
    assert reviewed_cases(replace(there, site=replace(o.site, inventory=gone))) == ((), 1)


def test_what_is_written_is_read_as_cases(
    handled: tuple[Orchestrator, list[DecisionRecord]], tmp_path: Path
) -> None:
    o, (first, *_) = handled
    review(o, first, RIGHT)
    found, _ = reviewed_cases(context(o))
    path = tmp_path / "cases.jsonl"
    write_new(path, [case.model_dump_json(exclude_defaults=True) for case in found])
    (case,) = read_cases(path)
    assert case.model_copy(update={"held_out": False}) == found[0]
    assert path.stat().st_mode & 0o077 == 0
