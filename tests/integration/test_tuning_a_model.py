"""A whole tuning of a tiny model: trained in its own process, stopped, gone on with, and judged as served."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests import tiny
from watchkeeper.models.adapter_store import add_adapter, installed_adapters
from watchkeeper.models.calibration_cases import LabelledCase
from watchkeeper.models.catalog import find_model
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.loading import load
from watchkeeper.runtime.tuning import Tuning
from watchkeeper.runtime.tuning_verdict import TuningPlan
from watchkeeper.tools.training import trainer_of

# peft's own use of a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")

COLOURS = ("red", "blue", "green", "black")


def own_cases() -> list[LabelledCase]:
    """Few tokens each: the answer is the colour that is seen."""
    return [
        LabelledCase(
            question=f"Seen {number}: {seen}.",
            neutral="Seen: none.",
            lead="It is",
            options=COLOURS,
            answer=seen,
            topic=seen,
            held_out=number >= 24,
            neutral_weight=0.5,
        )
        for number in range(80)
        for seen in (COLOURS[number % 4],)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    hosted = tiny.hosted()
    hosted.model.save_pretrained(folder)
    hosted.tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_tuning_is_stopped_gone_on_with_and_judged(model: str, tmp_path: Path) -> None:
    plan = TuningPlan(model=model, quantization="int8", drills=0, held_out=0, calls=2, data_sha256="own")
    tuning = Tuning.open(tmp_path, "site", plan, own_cases())
    stopped = tuning.train(threads=1, wanted=lambda: False)
    assert stopped.how == "stopped"
    told: list[str] = []
    ending = tuning.train(threads=1, progress=lambda stage, done, total: told.append(stage))
    assert (ending.how, ending.reason) == ("done", "")
    assert told[-1] == "train: done"
    steps = [row["step"] for row in tuning.job.metrics()]
    assert steps == list(range(1, 4))  # 24 cases, eight a step, each step once
    started = time.monotonic()
    assert tuning.train(threads=1).how == "done"
    assert time.monotonic() - started < 5  # nothing is trained twice
    engine = LocalEngine(load(model, quantization="int8"))
    try:
        verdict = tuning.judge(engine)
    finally:
        engine.close()
    assert (verdict.learned, verdict.choices.cases, verdict.calls.cases) == (24, 56, 2)
    assert verdict.topics.keys() == set(COLOURS)

    entry = find_model(model)
    tuning.install(entry, verdict.model_copy(update={"earned": True}), tmp_path)
    folder = installed_adapters(entry, tmp_path)["site"]
    card = (folder / "README.md").read_text()
    assert "## What it is worth" in card
    assert "56 held-out decisions" in card
    assert "24 closed questions" in card
    assert "\n\n## What it is worth\n" in card
    assert (folder / "evaluation.json").is_file()
    assert add_adapter(entry, "copy", folder, tmp_path).largest_rank == 16

    trainer = trainer_of("agent-tuning")
    parameters = trainer.parse_parameters({"model": model, "quantization": "int8"})
    scored = trainer.evaluate(folder, tuning.folder / "decisions.jsonl", parameters)
    assert scored.rows == 56
    assert scored.metrics["accuracy"] == pytest.approx(verdict.choices.after)
    assert list(scored.outcomes) == [float(outcome) for outcome in scored.outcomes]
