"""A fitted transformer that tells the class of a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from watchkeeper.tools.errors import ArtefactError
from watchkeeper.tools.predictors.bag import softmax

if TYPE_CHECKING:
    from watchkeeper.tools.predictors.text import TextDescription

FOLDER = "transformer"


class TransformerEncoder:
    """A sequence classifier in the format of transformers, asked one text at a time."""

    def __init__(self, model: Any, tokenizer: Any, *, max_tokens: int, temperature: float) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._temperature = temperature

    @classmethod
    def load(cls, folder: Path, description: TextDescription) -> Self:
        """Load one from a predictor's folder; no network is used.

        Raises:
            ArtefactError: If it is missing or damaged.
        """
        model, tokenizer = open_classifier(folder / FOLDER)
        if model.config.num_labels != len(description.classes):
            raise ArtefactError(
                f"{folder / FOLDER} tells {model.config.num_labels} classes, and the description names "
                f"{len(description.classes)}"
            )
        return cls(
            model.eval(), tokenizer, max_tokens=description.max_tokens, temperature=description.temperature
        )

    def scores(self, text: str) -> NDArray[np.float64]:
        """Return a score for each class, before the temperature."""
        import torch

        with torch.inference_mode():
            given = self.tokenizer([text], truncation=True, max_length=self.max_tokens, return_tensors="pt")
            found: NDArray[np.float64] = self.model(**given).logits[0].double().numpy()
            return found

    def probabilities(self, text: str) -> NDArray[np.float64]:
        """Return the probability of each class."""
        return softmax(self.scores(text) / self._temperature)


def open_classifier(folder: Path, classes: int | None = None) -> tuple[Any, Any]:
    """Load a transformer as a classifier, and its tokenizer.

    Args:
        folder: Where it lies.
        classes: How many it shall tell: a head for another number is replaced by one that is drawn from
            torch's generator. None where it is to be used as it is.

    Raises:
        ArtefactError: If the folder holds none that can be used.
    """
    import torch
    import transformers

    library: Any = transformers
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        model, loaded = library.AutoModelForSequenceClassification.from_pretrained(
            str(folder),
            **({} if classes is None else {"num_labels": classes}),
            ignore_mismatched_sizes=classes is not None,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).strip().splitlines()
        raise ArtefactError(
            f"{folder} holds no transformer that can tell classes: {first[0] if first else error!r}"
        ) from error
    missing = sorted(loaded["missing_keys"])
    if classes is None and missing:
        raise ArtefactError(f"{folder} lacks the weights {missing[0]!r}: train it anew")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise ArtefactError(
            f"{folder}: its tokenizer has neither a padding nor an end token: set one of them"
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer
