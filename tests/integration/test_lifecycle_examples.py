"""Every example of a lifecycle ends in the state that its name says: real training, registry and server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env={**environment, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.model
@pytest.mark.timeout(600)
def test_drift_is_noticed_and_a_new_version_answers() -> None:
    said = run("drift_retrain_promote.py")
    assert "consider: the agent would retrain" in said
    assert "outcome: promoted\nversion that answers: 2" in said


@pytest.mark.timeout(600)
def test_a_bad_challenger_is_refused() -> None:
    said = run("bad_challenger_is_refused.py")
    assert "outcome: refused: worse\nversion that answers: 1" in said


@pytest.mark.timeout(600)
def test_a_biased_version_is_refused() -> None:
    said = run("biased_model_is_refused.py")
    assert "outcome: refused: biased\nversion that answers: 1" in said


@pytest.mark.timeout(600)
def test_a_live_regression_is_taken_back() -> None:
    said = run("live_regression_rolls_back.py")
    assert "outcome: rolled-back\nversion that answers: 1" in said


@pytest.mark.model
@pytest.mark.timeout(600)
def test_an_adapter_is_used_only_if_it_was_judged_better() -> None:
    said = run(
        "tune_the_agents_model.py",
        *("--model", "smollm2-135m-instruct", "--decisions", "24", "--held-out", "50", "--calls", "4"),
    )
    assert "50 held-out decisions: " in said
    assert "95 % interval of the difference: " in said
    assert "earned: " in said
