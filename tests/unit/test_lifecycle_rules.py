"""What a version must show: read from YAML, refused with its place, and applied to comparisons."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.agents.curator import Course, Situation
from watchkeeper.runtime.errors import ConfigurationError
from watchkeeper.runtime.lifecycle_rules import CompareRules, LifecycleRules
from watchkeeper.runtime.lifecycle_scoring import Explained, judge_comparison
from watchkeeper.runtime.lifecycle_watching import looks
from watchkeeper.tools.errors import UntrustedTextError
from watchkeeper.tools.passages import Trusted
from watchkeeper.tools.predictors.explain import Explanation, Piece
from watchkeeper.tools.training.interface import Evaluation
from watchkeeper.tools.versions.compare import compare

PAGE = Path(__file__).parents[2] / "docs" / "predictors.md"


def test_the_rules_of_the_documentation_are_read(tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(predictors:\n.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert found is not None
    (tmp_path / "lifecycle.yaml").write_text(found[1])
    rules = LifecycleRules.of_home(tmp_path).predictors["desk"]
    assert (rules.compare.gain, rules.trial.labels, rules.bias.columns) == (0.01, 100, ("site",))
    assert rules.job == tmp_path / "desk-job.yaml"


def test_a_wrong_rule_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "lifecycle.yaml"
    path.write_text("predictors:\n  desk:\n    host: a\n    job: j\n    held_out: h\n    sure: 7\n")
    with pytest.raises(ConfigurationError, match=r"lifecycle\.yaml.*6.*7"):
        LifecycleRules.load(path)
    assert LifecycleRules.of_home(tmp_path / "other").predictors == {}


def scored(right: int, of: int = 100) -> Evaluation:
    outcomes = tuple(float(number < right) for number in range(of))
    return Evaluation(primary="accuracy", metrics={"accuracy": right / of}, rows=of, outcomes=outcomes)


@pytest.mark.parametrize(
    ("before", "after", "rules", "ok"),
    [
        (70, 90, {}, True),
        (70, 72, {}, False),  # chance explains that
        (70, 72, {"need": "not-worse"}, True),
        (90, 70, {"need": "not-worse", "gain": -1.0}, False),
        (70, 90, {"gain": 0.3}, False),
        (70, 90, {"least": 0.95}, False),
    ],
)
def test_a_challenger_must_be_better_than_chance_explains(
    before: int, after: int, rules: dict[str, Any], ok: bool
) -> None:
    judged = judge_comparison(compare(scored(before), scored(after)), CompareRules(**rules))
    assert judged.ok is ok, judged.reason


def test_where_no_example_stands_alone_the_metric_tells() -> None:
    one, other = (Evaluation(primary="skill", metrics={"skill": value}, rows=9) for value in (0.1, 0.2))
    assert judge_comparison(compare(one, other), CompareRules()).ok
    assert not judge_comparison(compare(other, one), CompareRules()).ok
    assert not judge_comparison(compare(one, one), CompareRules()).ok


def test_what_is_kept_of_an_explained_row_holds_no_secret() -> None:
    row = "login failed password=hunter2"
    pieces = tuple(Piece(row.index(text), row.index(text) + len(text), text, 0.5) for text in row.split())
    cut = Piece(row.index("hunter2"), len(row), "hunter2", 0.7)
    told = Explained(row, "yes", Explanation("yes", 0.9, (cut, *pieces))).told()
    assert "hunter2" not in str(told)
    assert told["pieces"] == [
        ["[redacted]", 0.7],
        ["login", 0.5],
        ["failed", 0.5],
        ["[redacted]", 0.5],
    ]


@pytest.mark.parametrize(("wanted", "number"), [(10, 1), (30, 1), (31, 2), (60, 2), (200, 4)])
def test_looks_double(wanted: int, number: int) -> None:
    assert looks(wanted) == number


def situation(**values: Any) -> Situation:
    given: dict[str, Any] = {
        "predictor": Trusted("desk"),
        "predictions": 500,
        "asked_shifted": 1,
        "answers_shifted": 0,
        "labels": 0,
        "share": None,
        "held_out": 0.9,
        "worse": False,
        "fresh_rows": 300,
    }
    return Situation(**(given | values))


def test_only_what_makes_sense_is_offered() -> None:
    assert situation().courses(may_retrain=True) == (Course.RETRAIN, Course.WAIT, Course.ESCALATE)
    assert situation(worse=True).courses(may_retrain=True) == (Course.RETRAIN, Course.ESCALATE)
    fell = situation(right_before=0.95, right_since=0.6)
    assert fell.courses(may_retrain=True) == (Course.RETRAIN, Course.ESCALATE)
    # Training again makes nothing faster, and mends no failure.
    slow = situation(asked_shifted=0, slower=3.2)
    assert slow.courses(may_retrain=True) == (Course.WAIT, Course.ESCALATE)
    assert situation(asked_shifted=0, failing=0.3).courses(may_retrain=True) == (Course.ESCALATE,)
    assert situation(failing=0.3).courses(may_retrain=True) == (Course.RETRAIN, Course.ESCALATE)
    assert situation(fresh_rows=0).courses(may_retrain=True) == (Course.WAIT, Course.ESCALATE)
    assert situation(worse=True).courses(may_retrain=False) == (Course.ESCALATE,)


def test_the_agent_is_told_numbers_and_no_words_of_others() -> None:
    said = " ".join(situation(labels=40, share=0.5, worse=True).told())
    assert "right in 50 % of 40 labelled answers; it was right in 90 %" in said
    assert "certainly worse" in said
    for words in ("Since a change", "times as long", "fails"):
        assert words not in said
    served = " ".join(situation(slower=3.2, failing=0.25).told())
    assert "Its answers take 3 times as long as at first. It fails at 25 % of rows." in served
    said = " ".join(situation(right_before=0.95, right_since=0.6).told())
    assert "Since a change, 60 % of its labelled answers are right; before, 95 % were." in said
    with pytest.raises(UntrustedTextError):
        situation(predictor="from a stranger").told()
