"""A decision: what an agent was asked, what it could have answered, and what it chose."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from watchkeeper.models.interface import Basis, Choice, Message, ModelIdentity, Usage


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice of an agent, complete enough to answer "why" later.

    Attributes:
        role: Who was asked.
        question: What was asked, in a few words.
        options: What could be answered.
        probabilities: The probability of each option, in their order; empty where the answer was
            generated rather than chosen.
        chosen: Indices of what was taken, the first choice first.
        evidence: Ids of the evidence that the prompt showed.
        prompt_digest: SHA-256 of the whole prompt.
        identity: Which model answered.
        usage: What it cost.
        basis: Where the probabilities come from; empty where the answer was generated.
        calibration: Digest of the calibration that made them, if one did.
        adapter: Name and digest of the adapter that answered; empty for the base model.
    """

    role: str
    question: str
    options: tuple[str, ...]
    probabilities: tuple[float, ...]
    chosen: tuple[int, ...]
    evidence: tuple[str, ...]
    prompt_digest: str
    identity: ModelIdentity
    usage: Usage
    basis: Basis | Literal[""] = ""
    calibration: str = ""
    adapter: str = ""

    @property
    def confidence(self) -> float:
        """Probability of the first choice; 1 where the answer was generated."""
        return self.probabilities[self.chosen[0]] if self.probabilities and self.chosen else 1.0

    @classmethod
    def of_choice(
        cls,
        choice: Choice,
        *,
        role: str,
        question: str,
        messages: Sequence[Message],
        evidence: Sequence[str],
        identity: ModelIdentity,
        take: int = 1,
    ) -> Decision:
        """Record a closed question of which the ``take`` most probable options are taken."""
        return cls(
            role=role,
            question=question,
            options=tuple(option.text for option in choice.options),
            probabilities=tuple(option.probability for option in choice.options),
            chosen=tuple(choice.ranking[:take]),
            evidence=tuple(evidence),
            prompt_digest=prompt_digest(messages),
            identity=identity,
            usage=choice.usage,
            basis=choice.basis,
            calibration=choice.calibration,
            adapter=choice.adapter,
        )


def prompt_digest(messages: Sequence[Message]) -> str:
    """SHA-256 over the roles and contents of a prompt."""
    digest = hashlib.sha256()
    for message in messages:
        digest.update(f"{message.role.value}\0{message.content}\0".encode())
    return digest.hexdigest()
