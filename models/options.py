"""How an engine uses the machine."""

from __future__ import annotations

from dataclasses import dataclass

from watchkeeper.models.calibration import Calibration

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine uses the machine.

    Attributes:
        prefix_bytes: Memory for keys and values that later requests may reuse; 0 turns reuse off.
        running_bytes: Memory for keys and values of the requests that run.
        running: Requests that are computed together.
        waiting: Requests that may wait; more are refused.
        step_tokens: Tokens of one forward pass. A cancellation waits for at most one pass.
        fast_forward: Compute tokens that the grammar forces in one pass instead of one pass each.
        guesses: Tokens an answer guesses at most from what was said before and computes in the same pass;
            0 turns that off. It changes no answer: where a token's bits depend on what else is in a pass
            (with other models than int8 Llama and Qwen2 on a CPU, and with adapters) nothing is guessed, nor
            without ``fast_forward``.
        calibration: Turns the scores of closed questions into probabilities; where ``None``, the model's own
            if ``open_engine`` finds one that ``watchkeeper models calibrate`` made.
    """

    prefix_bytes: int = _GIB
    running_bytes: int = _GIB
    running: int = 16
    waiting: int = 512
    step_tokens: int = 160
    fast_forward: bool = True
    guesses: int = 4
    calibration: Calibration | None = None
