"""Fitting of a transformer that tells the class of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from watchkeeper.tools.errors import ArtefactError, DataError
from watchkeeper.tools.predictors.bag import write_description
from watchkeeper.tools.predictors.text import TextDescription
from watchkeeper.tools.predictors.transformer import FOLDER, TransformerEncoder, open_classifier
from watchkeeper.tools.training.bag import class_weights, temperature_of
from watchkeeper.tools.training.fitting import Schedule, fit, threads
from watchkeeper.tools.training.interface import TrainingRun

if TYPE_CHECKING:
    import torch

    from watchkeeper.tools.training.text_classifier import TextParameters

_EPOCHS = 3
_LEARNING_RATE = 5e-5
_SHARE_OF_FITTING = 0.95


def fit_transformer(
    run: TrainingRun,
    parameters: TextParameters,
    classes: tuple[str, ...],
    *,
    texts: Sequence[str],
    labels: Sequence[int],
    held_out: Sequence[str],
    truth: NDArray[np.int64],
    about: str,
) -> None:
    """Fit the transformer that the parameters name, and leave it with its description in the run's folder.

    Raises:
        DataError: If there is no such model, or the run's checkpoint belongs to other data or parameters.
        DivergedError: If the loss is no finite number.
        JobCancelledError: If the run was cancelled.
    """
    import torch
    from torch.nn import functional

    from watchkeeper.models.catalog import find_model
    from watchkeeper.models.errors import ModelError
    from watchkeeper.models.store import find_installed

    try:
        installed = find_installed(find_model(parameters.model or ""))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            model, tokenizer = open_classifier(installed.weights, len(classes))
    except (ModelError, ArtefactError) as error:
        raise DataError(f"model {parameters.model!r}: {error}") from error
    weight = class_weights(labels, len(classes), parameters.balance)
    target = torch.tensor(list(labels))

    def loss_of(batch: Sequence[int]) -> torch.Tensor:
        given = tokenizer(
            [texts[number] for number in batch],
            truncation=True,
            max_length=parameters.max_tokens,
            padding=True,
            return_tensors="pt",
        )
        return functional.cross_entropy(model(**given).logits, target[list(batch)], weight=weight)

    schedule = Schedule(
        len(texts),
        parameters.epochs or _EPOCHS,
        parameters.batch_size,
        parameters.learning_rate or _LEARNING_RATE,
        parameters.weight_decay,
    )
    with threads(run.threads):
        fit(run, model, loss_of, schedule, about=f"{about} {installed.digest}", share=_SHARE_OF_FITTING)
        encoder = TransformerEncoder(model, tokenizer, max_tokens=parameters.max_tokens, temperature=1.0)
        scores = []
        for text in held_out:
            run.check()
            scores.append(encoder.scores(text))
    temperature = temperature_of(np.array(scores).reshape(len(held_out), len(classes)), truth)
    model.save_pretrained(run.artefacts / FOLDER)
    tokenizer.save_pretrained(run.artefacts / FOLDER)
    description = TextDescription(
        encoder="transformer",
        column=parameters.text,
        classes=classes,
        temperature=temperature,
        max_tokens=parameters.max_tokens,
    )
    write_description(run.artefacts, description.model_dump(mode="json"))
