"""What an adapter is worth, whether that is enough, and the card that tells it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from watchkeeper.models.choice_evaluation import Paired

TOLERATED_LOSS = 0.02
"""Share of tool calls that an adapter may answer worse by: below what so few of them can tell apart."""

CARD_HEADING = "## What it is worth\n"


_LIMITS = (
    "The decisions are generated: their observations are cleaner than those of real incidents, there is "
    "always one right answer among the options, and nothing but the reviews of a site's people tells how far "
    "the gain carries to its own faults. It is for the role of the diagnostician; other roles are asked "
    "without it. Its shares are not the base model's, so a calibration of the base model does not hold "
    "for it."
)


class TuningPlan(BaseModel):
    """What is to be tuned, and on what; a run that was stopped goes on only with the same plan.

    Attributes:
        model: Id of the model.
        quantization: How its weights are held while it is judged.
        drills: Generated decisions to learn from.
        held_out: Generated decisions that only judge.
        calls: Generated tool calls that judge, too.
        seed: Decides on all that is generated, and on the training.
        data_sha256: Digest of the site's own decisions, if any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    quantization: str = "auto"
    drills: int = 1600
    held_out: int = 200
    calls: int = 60
    seed: int = 0
    data_sha256: str = ""


class TuningVerdict(BaseModel):
    """What an adapter is worth.

    Attributes:
        plan: What was tuned.
        quantization: How the weights were held.
        learned: Decisions that were learned from.
        choices: First choices in held-out decisions, without and with the adapter.
        calls: Tool calls, without and with the adapter.
        topics: The same by kind of fault: number of decisions, right before, right after.
        earned: Whether it may be used.
        reason: Why, or why not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: TuningPlan
    quantization: str
    learned: int
    choices: Paired
    calls: Paired
    topics: dict[str, tuple[int, int, int]]
    earned: bool
    reason: str


def judgement(choices: Paired, calls: Paired) -> tuple[bool, str]:
    """Say whether an adapter has earned its use, and why."""
    interval = f"{choices.low:+.3f} to {choices.high:+.3f}"
    if not choices.is_better:
        return False, f"the 95 % interval of the gain in held-out decisions, {interval}, does not exclude 0"
    if calls.high < 0 or calls.difference < -TOLERATED_LOSS:
        return False, f"tool calls lose: {calls.before:.3f} right before and {calls.after:.3f} after"
    gained = f"held-out decisions gain {choices.difference:+.3f} ({interval})"
    return True, f"{gained}, and tool calls change by {calls.difference:+.3f}"


def card(verdict: TuningVerdict) -> str:
    """Write the part of an adapter's card that tells what it is worth."""
    choices, calls = verdict.choices, verdict.calls
    rows = "\n".join(
        f"| {topic} | {count} | {before} | {after} |"
        for topic, (count, before, after) in verdict.topics.items()
    )
    return (
        f"{CARD_HEADING}\n"
        f"Judged as it is served, in {verdict.quantization}, on {choices.cases} held-out decisions: right in "
        f"{choices.before:.3f} without it and in {choices.after:.3f} with it, a difference of "
        f"{choices.difference:+.3f} (95 % interval {choices.low:+.3f} to {choices.high:+.3f}, paired "
        f"bootstrap; {choices.gained} gained, {choices.lost} lost). Of {calls.cases} generated tool calls "
        f"{calls.before:.3f} were right without it and {calls.after:.3f} with it.\n\n"
        f"## Limits\n\n{_LIMITS}\n\n"
        "## By kind of fault\n\n| kind | decisions | right before | right after |\n|---|---|---|---|\n"
        f"{rows}\n"
    )
