"""What a model's scores are worth: from log-probabilities of options to how often such an answer is right.

A calibration has few parameters, fitted on labelled cases by maximum likelihood (``calibration_fit``):
temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599) over scores that may be normalized by
length and corrected by a neutral prompt.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from watchkeeper.models.errors import CalibrationError
from watchkeeper.models.interface import ModelIdentity
from watchkeeper.models.manifest import write_durably

FORMAT = 1
Share = Annotated[float, Field(ge=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Scale(_Frozen):
    """How scores become shares: ``softmax(score / tokens ** length_exponent / temperature)``.

    Attributes:
        temperature: Above 1 makes shares flatter, below 1 sharper.
        length_exponent: 0 takes the sum over an option's tokens, 1 their mean.
        neutral_weight: Share of the neutral log-probability that is taken off; what the question asks for
            where ``None``.
    """

    temperature: float = Field(default=1.0, gt=0)
    length_exponent: float = Field(default=0.0, ge=0, le=1)
    neutral_weight: float | None = Field(default=None, ge=0)


class Bin(_Frozen):
    """Answers whose probability lies in one range.

    Attributes:
        low: Lower end of the range.
        high: Upper end of the range.
        cases: How many there are.
        confidence: Their mean probability.
        accuracy: Share of them that was right.
    """

    low: Share
    high: Share
    cases: int = Field(ge=1)
    confidence: Share
    accuracy: Share


class Quality(_Frozen):
    """How good answers and their probabilities are.

    Attributes:
        cases: Number of questions.
        accuracy: Share of questions whose most probable option was right.
        ece: Expected calibration error: by how much confidence and accuracy differ, as the mean over bins of
            equal width weighted by their cases (Naeini et al. 2015).
        brier: Mean over questions of the squared differences between shares and the truth, summed over the
            options: 0 is perfect, 2 the worst (Brier 1950).
        log_loss: Mean negative log of the right option's share, in nats.
        bins: Reliability by range of probability; empty ranges are left out.
    """

    cases: int = Field(ge=1)
    accuracy: Share
    ece: Share
    brier: float = Field(ge=0, le=2)
    log_loss: float = Field(ge=0)
    bins: tuple[Bin, ...] = ()


class Comparison(_Frozen):
    """The same questions before and after a calibration.

    Attributes:
        asked: ``"plain"`` without, ``"corrected"`` with a neutral conversation.
        judged_by: ``"cross-validation"`` over topics that were not fitted, or ``"held-out"`` cases.
        before: With the softmax of the scores as they are.
        after: With the calibration.
    """

    asked: str
    judged_by: str
    before: Quality
    after: Quality


class Calibration(_Frozen):
    """The calibration of one model in one quantization; the default changes nothing.

    Attributes:
        format: Version of the file.
        model: Id of the model; empty for the default.
        model_digest: SHA-256 of its weights.
        quantization: How its weights were held.
        adapter: SHA-256 of the adapter it is for; empty for the model alone.
        plain: For questions without a neutral conversation.
        corrected: For questions with one.
        cases_digest: SHA-256 of the cases it was fitted on.
        measured: What it is worth.
    """

    format: int = FORMAT
    model: str = ""
    model_digest: str = ""
    quantization: str = ""
    adapter: str = ""
    plain: Scale = Scale()
    corrected: Scale = Scale()
    cases_digest: str = ""
    measured: tuple[Comparison, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides on shares; empty for the default."""
        if self.plain == self.corrected == Scale():
            return ""
        said = f"{self.format} {self.plain.model_dump_json()} {self.corrected.model_dump_json()}"
        return hashlib.sha256(said.encode()).hexdigest()

    def scores(
        self,
        logprobs: Sequence[float],
        neutral_logprobs: Sequence[float] | None = None,
        *,
        neutral_weight: float = 1.0,
    ) -> list[float]:
        """Correct log-probabilities by those under the neutral conversation.

        Args:
            logprobs: Of each option, in nats.
            neutral_logprobs: The same under the neutral conversation, where there was one.
            neutral_weight: What the question asks for; a fitted weight comes before it.
        """
        if neutral_logprobs is None:
            return list(logprobs)
        fitted = self.corrected.neutral_weight
        weight = neutral_weight if fitted is None else fitted
        if weight == 0:
            return list(logprobs)
        return [given - weight * without for given, without in zip(logprobs, neutral_logprobs, strict=True)]

    def shares(
        self,
        logprobs: Sequence[float],
        neutral_logprobs: Sequence[float] | None,
        lengths: Sequence[int],
        *,
        neutral_weight: float = 1.0,
    ) -> list[float]:
        """Turn the scores of a closed question into the probability that each option is right.

        Args:
            logprobs: Summed log-probability of each option's tokens, in nats.
            neutral_logprobs: The same under the neutral conversation, where there was one.
            lengths: Number of tokens that were scored of each option.
            neutral_weight: What the question asks for; a fitted weight comes before it.

        Returns:
            Shares that sum to 1, in the order of the options.
        """
        scale = self.plain if neutral_logprobs is None else self.corrected
        scores = self.scores(logprobs, neutral_logprobs, neutral_weight=neutral_weight)
        scaled = [
            score / max(length, 1) ** scale.length_exponent / scale.temperature
            for score, length in zip(scores, lengths, strict=True)
        ]
        return _softmax(scaled)


def calibration_path(folder: Path, quantization: str) -> Path:
    """Where the calibration of a model lies, beside its other files."""
    return folder / f"calibration-{quantization}.json"


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Keep a calibration in a model's folder; what was there before is replaced at once or not at all.

    Returns:
        The file.

    Raises:
        CalibrationError: If the folder cannot be written.
    """
    path = calibration_path(folder, calibration.quantization)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(path, calibration.model_dump_json(indent=1).encode() + b"\n")
    except OSError as error:
        raise CalibrationError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def read_calibration(folder: Path, identity: ModelIdentity, *, adapter: str = "") -> Calibration:
    """Read the calibration of a model, or the one that changes nothing where there is none.

    Args:
        folder: The model's folder in Watchkeeper's home, or an adapter's.
        identity: The model as it is loaded.
        adapter: SHA-256 of the adapter that the folder holds; empty for the model alone.

    Raises:
        CalibrationError: If the file is damaged, of another version, or of other weights.
    """
    path = calibration_path(folder, identity.quantization)
    again = f"run 'watchkeeper models calibrate {identity.id}' again, or remove the file"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Calibration()
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read: {error.strerror or error}") from error
    version = re.search(rb'"format":\s*(\d+)', content)
    if version is not None and int(version[1]) != FORMAT:
        raise CalibrationError(f"{path} has version {int(version[1])}, this one reads {FORMAT}: {again}")
    try:
        found = Calibration.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        raise CalibrationError(f"{path}: {place}: {first['msg']}: {again}") from None
    if (found.model_digest, found.quantization) != (identity.digest, identity.quantization):
        message = (
            f"{path} is for weights {found.model_digest!r} as {found.quantization!r}, and those that are "
            f"loaded are {identity.digest!r} as {identity.quantization!r}: {again}"
        )
        raise CalibrationError(message)
    if found.adapter != adapter:
        message = (
            f"{path} is for adapter {found.adapter or 'none'!r}, and beside it is {adapter or 'none'!r}: run "
            f" 'watchkeeper models calibrate {identity.id} --adapter NAME' again, or remove the file"
        )
        raise CalibrationError(message)
    return found


def _softmax(scores: Sequence[float]) -> list[float]:
    highest = max(scores)
    if highest == -math.inf:
        return [1 / len(scores)] * len(scores)
    parts = [math.exp(score - highest) for score in scores]
    total = math.fsum(parts)
    return [part / total for part in parts]
