"""The trainer of the agents' own language model: a LoRA adapter that learns to choose."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from watchkeeper.models.calibration_cases import LabelledCase, read_cases
from watchkeeper.models.errors import AdapterError, CalibrationError
from watchkeeper.tools.errors import ArtefactError, DataError, MissingExtraError
from watchkeeper.tools.predictors.artefact import Manifest, write_manifest
from watchkeeper.tools.training.interface import DataSummary, Evaluation, Parameters, Trainer, TrainingRun

FEWEST_CASES = 20
CARD = "README.md"
_ADAPTER = "tuned"


class AgentTuningParameters(Parameters):
    """How an adapter is trained.

    Attributes:
        model: Id of the catalog or a folder; the default model where empty.
        quantization: How the model is held while an adapter is evaluated.
        epochs: How often every case is learned from.
        rank: Of the low-rank matrices.
        last_layers: How many of the last layers are adapted; half of them where 0.
        learning_rate: At its highest.
        batch: Cases a step.
        loss: See `watchkeeper.models.lora_training.Recipe`.
        forward: See there.
        checkpoint_steps: Steps between checkpoints.
    """

    model: str = ""
    quantization: Literal["auto", "nf4", "int8", "none"] = "auto"
    epochs: int = Field(default=1, ge=1, le=100)
    rank: int = Field(default=16, ge=1, le=256)
    last_layers: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=3e-4, gt=0, lt=1)
    batch: int = Field(default=8, ge=1, le=256)
    loss: Literal["branches", "options"] = "branches"
    forward: Literal["served", "exact"] = "served"
    checkpoint_steps: int = Field(default=5, ge=1)


class AgentTuning(Trainer[AgentTuningParameters]):
    """Trains an adapter on closed questions with known answers, one JSON object a line.

    The lines are those of `watchkeeper.models.calibration_cases.LabelledCase`; held-out ones are never
    learned from.
    """

    name: ClassVar[str] = "agent-tuning"
    summary: ClassVar[str] = "a LoRA adapter with which the agents' language model chooses root causes"
    kind: ClassVar[str] = "adapter"
    parameters_type = AgentTuningParameters

    def inspect(self, data: Path, parameters: AgentTuningParameters) -> DataSummary:  # noqa: ARG002 (all data are one)
        """Look cases over.

        Raises:
            DataError: If they cannot be read, or are too few.
        """
        learned, held_out = _parted(data)
        topics = {case.topic for case in learned}
        return DataSummary(
            sha256=hashlib.sha256(data.read_bytes()).hexdigest(),
            rows=len(learned),
            columns={"question": "text", "options": "texts", "answer": "one of the options"},
            notes=(f"{len(topics)} topics", f"{len(held_out)} held-out cases are not learned from"),
        )

    def look_over(self, data: Path, parameters: AgentTuningParameters) -> DataSummary:  # noqa: ARG002 (as above)
        """Look cases over on which an adapter is to be scored; raises where they cannot be read."""
        return DataSummary(sha256=hashlib.sha256(data.read_bytes()).hexdigest(), rows=len(_judging(data)))

    def train(self, run: TrainingRun, parameters: AgentTuningParameters) -> None:
        """Learn, and leave an adapter in peft's format with its card.

        Raises:
            DataError: If the cases cannot be learned from.
            MissingExtraError: If peft is not installed.
            ModelError: If the model is not on this machine.
            DivergedError: If the loss stops being a number.
            JobCancelledError: If the run was cancelled.
        """
        summary = self.inspect(run.data, parameters)
        cases, _ = _parted(run.data)
        plan = _plan(cases, parameters, run.seed)

        from watchkeeper.models.loading import load
        from watchkeeper.models.lora_training import LoraTraining, Recipe

        loaded = load(parameters.model or None, quantization="none", device_map="cpu", threads=run.threads)
        recipe = Recipe(
            rank=parameters.rank,
            last_layers=parameters.last_layers,
            learning_rate=parameters.learning_rate,
            batch=parameters.batch,
            loss=parameters.loss,
            forward=parameters.forward,
        )
        name = loaded.entry.id
        try:
            training = LoraTraining(
                loaded.model, loaded.tokenizer, name=name, recipe=recipe, steps=len(plan), seed=run.seed
            )
        except AdapterError as error:
            if "peft" in str(error):
                raise MissingExtraError(str(error)) from error
            raise
        if run.checkpoint is not None:
            training.restore(run.checkpoint)
        for step in range(training.step_number, len(plan)):
            result = training.step([cases[index] for index in plan[step]], check=run.check)
            run.metric(step + 1, loss=result.loss, right=result.right, gradient=result.norm)
            done = f"step {step + 1} of {len(plan)}, loss {result.loss:.2f}"
            run.progress((step + 1) / len(plan), done)
            if (step + 1) % parameters.checkpoint_steps == 0 or step + 1 == len(plan):
                run.save(step + 1, training.save)
        training.save_adapter(run.artefacts)
        _write_card(run, parameters, name, loaded.identity.digest, cases, summary.sha256)

    def evaluate(self, predictor: Path, data: Path, parameters: AgentTuningParameters) -> Evaluation:
        """Let the model choose in the cases that are marked as held out, or in all where none is.

        Raises:
            DataError: If the cases cannot be read.
            ArtefactError: If the folder holds no adapter of the model.
        """
        cases = _judging(data)

        from watchkeeper.models.choice_evaluation import answer_cases
        from watchkeeper.models.engine import LocalEngine
        from watchkeeper.models.loading import load

        engine = LocalEngine(load(parameters.model or None, quantization=parameters.quantization))
        try:
            try:
                engine.load_adapter(_ADAPTER, predictor)
            except AdapterError as error:
                raise ArtefactError(str(error)) from error
            answers = answer_cases(engine, cases, adapter=_ADAPTER)
        finally:
            engine.close()
        topics: dict[str, list[bool]] = defaultdict(list)
        for answer in answers:
            topics[answer.topic].append(answer.right)
        count = len(answers)
        return Evaluation(
            primary="accuracy",
            metrics={
                "accuracy": sum(answer.right for answer in answers) / count,
                "log_likelihood": sum(math.log(max(a.probability, 1e-12)) for a in answers) / count,
            },
            groups={
                "topic": {
                    topic: {"accuracy": sum(right) / len(right)} for topic, right in sorted(topics.items())
                }
            },
            rows=count,
            outcomes=tuple(float(answer.right) for answer in answers),
        )


def _read(data: Path, *, part: bool) -> tuple[LabelledCase, ...]:
    try:
        return read_cases(data, part=part)
    except CalibrationError as error:
        raise DataError(str(error)) from error


def _judging(data: Path) -> Sequence[LabelledCase]:
    """Cases that judge: those that are marked as held out, or all."""
    cases = _read(data, part=False)
    if not cases:
        raise DataError(f"{data} has no cases")
    return [case for case in cases if case.held_out] or cases


def _parted(data: Path) -> tuple[list[LabelledCase], list[LabelledCase]]:
    """Cases to learn from, and held-out ones."""
    cases = _read(data, part=True)
    learned = [case for case in cases if not case.held_out]
    if len(learned) < FEWEST_CASES:
        raise DataError(
            f"{data} has {len(learned)} cases to learn from ({len(cases) - len(learned)} are held out): "
            f"give at least {FEWEST_CASES}"
        )
    return learned, [case for case in cases if case.held_out]


def _plan(cases: Sequence[LabelledCase], parameters: AgentTuningParameters, seed: int) -> list[list[int]]:
    """Which cases each step learns from."""
    order: list[int] = []
    for epoch in range(parameters.epochs):
        turn = list(range(len(cases)))
        random.Random(f"{seed} {epoch}").shuffle(turn)
        order += turn
    size = parameters.batch
    return [order[start : start + size] for start in range(0, len(order), size)]


def _write_card(
    run: TrainingRun,
    parameters: AgentTuningParameters,
    model: str,
    digest: str,
    cases: Sequence[LabelledCase],
    sha256: str,
) -> None:
    import peft
    import torch

    topics: dict[str, int] = defaultdict(int)
    for case in cases:
        topics[case.topic] += 1
    listed = "\n".join(f"- {topic}: {count}" for topic, count in sorted(topics.items()))
    settings = json.dumps(parameters.model_dump(mode="json"), sort_keys=True)
    (run.artefacts / CARD).write_text(
        f"# Adapter for {model}\n\n"
        "A LoRA adapter that chooses among the root causes which evidence supports. It is for the role of "
        "the diagnostician alone.\n\n"
        f"- Base model: {model}, weights with SHA-256 {digest}\n"
        f"- Trainer: {AgentTuning.name}, seed {run.seed}, parameters {settings}\n"
        f"- Learned from: {len(cases)} closed questions, file with SHA-256 {sha256}\n\n"
        f"## What it learned about\n\n{listed}\n",
        encoding="utf-8",
    )
    write_manifest(
        run.artefacts,
        Manifest(
            kind=AgentTuning.kind,
            trainer=AgentTuning.name,
            created_at=datetime.now(UTC),
            parameters=parameters.model_dump(mode="json"),
            seed=run.seed,
            data_sha256=sha256,
            rows=len(cases),
            versions={"peft": peft.__version__, "torch": str(torch.__version__)},
        ),
    )
