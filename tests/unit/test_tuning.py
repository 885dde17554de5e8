"""A tuning goes on where it was, judges on what it did not learn from, and installs only what is better."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.models.adapter_files import CONFIG_NAME, WEIGHTS_NAME
from watchkeeper.models.catalog import DEFAULT_MODEL, find_model
from watchkeeper.models.choice_evaluation import paired
from watchkeeper.models.errors import AdapterError
from watchkeeper.models.interface import (
    Choice,
    ChoiceRequest,
    Generation,
    GenerationRequest,
    ModelIdentity,
    ScoredOption,
    ToolCall,
    Usage,
)
from watchkeeper.models.shipped_adapters import DEFAULT_ADAPTER
from watchkeeper.runtime.errors import ConfigurationError
from watchkeeper.runtime.tuning import Tuning
from watchkeeper.runtime.tuning_verdict import TuningPlan, judgement

PLAN = TuningPlan(model="tiny", drills=30, held_out=60, calls=10)


class Student:
    """Answers right from a lesson on, and counts what it is asked."""

    identity = ModelIdentity("tiny", "int8", "0" * 64)

    def __init__(self, right: Callable[[ChoiceRequest], bool]) -> None:
        self.adapters: tuple[str, ...] = ()
        self.asked = 0
        self.right = right
        self.answers: dict[str, str] = {}

    def load_adapter(self, name: str, folder: Path) -> None:
        self.adapters = (*self.adapters, name)

    def choose(self, request: ChoiceRequest, *, cancel: object = None) -> Choice:
        self.asked += 1
        answer = self.answers[request.messages[-1].content]
        good = self.right(request)
        shares = [0.9 if (text == answer) is good else 0.1 for text in request.options]
        options = tuple(
            ScoredOption(text, -1.0, share) for text, share in zip(request.options, shares, strict=True)
        )
        return Choice(options, Usage())

    def generate(self, request: GenerationRequest, *, cancel: object = None) -> Generation:
        return Generation("", (ToolCall("none", {}),), "stop", Usage())


def student(tuning: Tuning, right: Callable[[ChoiceRequest], bool]) -> Any:
    made = Student(right)
    made.answers = {case.question: case.answer for case in tuning.judged}
    tuning.job.artefacts.mkdir(parents=True, exist_ok=True)
    for part in (CONFIG_NAME, WEIGHTS_NAME):  # answers are kept under the digest of what was trained
        (tuning.job.artefacts / part).write_text("{}")
    return made


def test_data_are_kept_with_their_held_out_part_apart(tmp_path: Path) -> None:
    tuning = Tuning.open(tmp_path, "site", PLAN)
    lines = (tuning.folder / "decisions.jsonl").read_text().splitlines()
    held_out = [json.loads(line)["held_out"] for line in lines]
    assert (held_out.count(False), held_out.count(True)) == (30, 60)
    assert len(tuning.judged) == 60


def test_the_same_plan_goes_on_and_another_is_told_with_what_differs(tmp_path: Path) -> None:
    assert Tuning.open(tmp_path, "site", PLAN) == Tuning.open(tmp_path, "site", PLAN)
    with pytest.raises(ConfigurationError, match="begun with seed 0 and not 3"):
        Tuning.open(tmp_path, "site", PLAN.model_copy(update={"seed": 3}))
    Tuning.open(tmp_path, "other", PLAN.model_copy(update={"seed": 3}))


def test_two_processes_do_not_work_at_one_tuning(tmp_path: Path) -> None:
    tuning = Tuning.open(tmp_path, "site", PLAN)
    said = "'site' is being worked at by another process"
    with (
        tuning.held(),
        pytest.raises(ConfigurationError, match=said),
        Tuning.open(tmp_path, "site", PLAN).held(),
    ):
        pytest.fail("two at once")
    with tuning.held():
        pass


def test_other_decisions_than_it_was_begun_with_are_not_mixed_in(tmp_path: Path) -> None:
    tuning = Tuning.open(tmp_path, "site", PLAN)
    data = next(tuning.folder.glob("*.jsonl"))
    data.write_text(data.read_text() + data.read_text().splitlines()[0] + "\n")
    with pytest.raises(ConfigurationError, match="begun with other decisions"):
        Tuning.open(tmp_path, "site", PLAN)


def test_too_few_held_out_decisions_judge_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="10 held-out decisions are too few"):
        Tuning.open(tmp_path, "site", PLAN.model_copy(update={"held_out": 10}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../site", "", "a b", "x" * 64])
def test_what_is_no_name_touches_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(AdapterError, match="is no name for an adapter"):
        Tuning.open(tmp_path, name, PLAN)
    assert list(tmp_path.iterdir()) == []


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    tuning = Tuning.open(tmp_path, "site", PLAN)
    first = student(tuning, lambda request: True)

    def stop(stage: str, done: int, total: int) -> None:
        if "with" in stage and "without" not in stage and done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning.judge(first, progress=stop)
    assert first.asked == 60 + 16
    path = next(tuning.folder.glob("choices-with-*.jsonl"))
    path.write_text(path.read_text() + '{"right": tr')  # cut off while it was written
    second = student(tuning, lambda request: True)
    tuning.judge(second)
    assert second.asked == 60 - 16


def test_an_adapter_that_was_trained_anew_is_asked_anew(tmp_path: Path) -> None:
    tuning = Tuning.open(tmp_path, "site", PLAN)
    tuning.judge(student(tuning, lambda request: True))
    again = student(tuning, lambda request: True)
    tuning.judge(again)
    assert again.asked == 0
    anew = student(tuning, lambda request: True)
    (tuning.job.artefacts / WEIGHTS_NAME).write_text("other weights")
    tuning.judge(anew)
    assert anew.asked == 60  # with it: what was said without it stays


def test_an_adapter_that_learned_has_earned_its_use(tmp_path: Path) -> None:
    tuning = Tuning.open(tmp_path, "site", PLAN)
    verdict = tuning.judge(student(tuning, lambda request: request.adapter is not None))
    assert verdict.earned
    assert (verdict.choices.before, verdict.choices.after) == (0, 1)
    assert verdict.learned == 30
    assert sum(count for count, _, _ in verdict.topics.values()) == 60


def test_one_that_is_no_better_is_not_installed(tmp_path: Path) -> None:
    tuning = Tuning.open(tmp_path, "site", PLAN)
    verdict = tuning.judge(student(tuning, lambda request: True))
    assert not verdict.earned
    assert "does not exclude 0" in verdict.reason
    entry = find_model("smollm2-135m-instruct")
    with pytest.raises(AdapterError, match="'site' is not installed: the 95 % interval"):
        tuning.install(entry, verdict, tmp_path)
    assert not (tmp_path / "adapters").exists()


def test_lost_tool_calls_outweigh_any_gain() -> None:
    better = paired([False] * 100, [True] * 80 + [False] * 20)
    same = paired([True] * 60, [True] * 60)
    one_lost = paired([True] * 60, [True] * 59 + [False])
    many_lost = paired([True] * 60, [True] * 55 + [False] * 5)
    assert judgement(better, same)[0]
    earned, reason = judgement(better, one_lost)
    assert earned
    assert reason.endswith("tool calls change by -0.017")
    earned, reason = judgement(better, many_lost)
    assert not earned
    assert reason == "tool calls lose: 1.000 right before and 0.917 after"


def test_the_name_of_an_adapter_that_comes_along_is_not_to_be_had(tmp_path: Path) -> None:
    entry = find_model(DEFAULT_MODEL)
    tuning = Tuning.open(tmp_path, DEFAULT_ADAPTER, PLAN)
    with pytest.raises(AdapterError, match="comes with Watchkeeper: take another name"):
        tuning.refuse_taken_name(entry, tmp_path)


def test_a_name_that_is_taken_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    entry = find_model("smollm2-135m-instruct")
    tuning = Tuning.open(tmp_path, "site", PLAN)
    tuning.refuse_taken_name(entry, tmp_path)
    (tmp_path / "adapters" / "smollm2-135m-instruct" / "site").mkdir(parents=True)
    with pytest.raises(AdapterError, match="has an adapter 'site' already"):
        tuning.refuse_taken_name(entry, tmp_path)
