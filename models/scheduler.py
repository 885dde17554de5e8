"""Who is computed next: a pure account of requests, tokens and room, without a tensor in it.

Requests wait, are admitted while there is room for all the keys and values they may come to need, and share
every forward pass. Tokens that answers wait for go first, since an answer under way costs one row each; what
is left of a pass goes to prompts, in chunks, so that a long prompt delays nobody for longer than one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from watchkeeper.models.errors import BusyError, CapacityError

# Passes after which a request that waits counts as one priority higher, so that none waits for ever.
AGING = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What one engine may do at a time.

    Attributes:
        step_tokens: Tokens of one forward pass.
        running: Requests that are computed together.
        waiting: Requests that may wait; more are refused.
        kv_tokens: Tokens of all running requests whose keys and values fit into memory.
        near_free: Tokens up to which one more costs a pass little, since weights are read once for all of
            them: guesses ride along in passes that are no larger.
    """

    step_tokens: int = 128
    running: int = 16
    waiting: int = 512
    kv_tokens: int = 1 << 16
    near_free: int = 8

    def __post_init__(self) -> None:
        for name in ("step_tokens", "running", "waiting", "kv_tokens", "near_free"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class Pending:
    """What a running request waits for.

    Attributes:
        tokens: Tokens to compute before it can go on.
        prompt: Whether they belong to its prompt; an answer's tokens go first.
        whole: Whether they must be computed in one pass.
        guesses: Tokens that may be computed behind them, if they cost next to nothing.
    """

    tokens: int
    prompt: bool = False
    whole: bool = False
    guesses: int = 0


@dataclass(slots=True)
class _Request:
    number: int
    need: int
    priority: int
    arrived: int

    def order(self, now: int) -> tuple[int, int]:
        return (-(self.priority + (now - self.arrived) // AGING), self.number)


class Scheduler:
    """Decides who waits, who runs, and how many tokens of each a pass computes.

    Args:
        limits: What the engine may do at a time.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._passes = 0
        self._waiting: dict[int, _Request] = {}
        self._running: dict[int, _Request] = {}

    @property
    def waiting(self) -> tuple[int, ...]:
        """Requests that wait, the next first."""
        return tuple(sorted(self._waiting, key=lambda number: self._waiting[number].order(self._passes)))

    @property
    def running(self) -> tuple[int, ...]:
        """Requests that were admitted, in the order of their arrival."""
        return tuple(sorted(self._running))

    @property
    def reserved(self) -> int:
        """Tokens that all running requests may come to hold."""
        return sum(request.need for request in self._running.values())

    def submit(self, number: int, need: int, priority: int = 0) -> None:
        """Let a request wait.

        Args:
            number: Its number; a later request has a higher one.
            need: Tokens it may come to hold: its prompt and its budget.
            priority: Higher goes first.

        Raises:
            CapacityError: If it would not fit into an empty engine.
            BusyError: If too many wait already.
        """
        if need > self.limits.kv_tokens:
            raise CapacityError(
                f"the request may need {need} tokens of keys and values, and {self.limits.kv_tokens} fit; "
                f"shorten the conversation or lower max_tokens to stay within {self.limits.kv_tokens}"
            )
        if len(self._waiting) >= self.limits.waiting:
            raise BusyError(
                f"{len(self._waiting)} requests wait already, the most that may (waiting="
                f"{self.limits.waiting}); ask again later"
            )
        self._waiting[number] = _Request(number, need, priority, self._passes)

    def admit(self, ready: Callable[[int], bool] = lambda _: True) -> list[int]:
        """Let those run that there is room for, and return them.

        A request that does not fit holds up those behind it: smaller ones would otherwise pass it for ever.
        One that is not ready holds up nobody.

        Args:
            ready: Whether a request can begin now.
        """
        admitted: list[int] = []
        for number in self.waiting:
            if len(self._running) >= self.limits.running:
                break
            if not ready(number):
                continue
            if self.reserved + self._waiting[number].need > self.limits.kv_tokens:
                break
            self._running[number] = self._waiting.pop(number)
            admitted.append(number)
        return admitted

    def leave(self, number: int) -> None:
        """Forget a request that ended or was cancelled, wherever it stood."""
        self._waiting.pop(number, None)
        self._running.pop(number, None)

    def plan(self, pending: Mapping[int, Pending]) -> dict[int, int]:
        """Say how many tokens of each running request the next pass computes.

        Args:
            pending: What each running request waits for.

        Returns:
            Tokens by request. The sum stays within ``step_tokens``, unless one request that must be computed
            whole needs more.
        """
        self._passes += 1
        order = sorted(pending, key=lambda number: self._running[number].order(self._passes))
        answers = [number for number in order if not pending[number].prompt and not pending[number].whole]
        prompts = [number for number in order if number not in set(answers) and not pending[number].whole]
        wholes = [number for number in order if pending[number].whole]
        room = self.limits.step_tokens
        planned: dict[int, int] = {}
        for number in answers:
            count = min(pending[number].tokens, room)
            if count:
                planned[number], room = count, room - count
        for place, number in enumerate(wholes):
            count = pending[number].tokens
            # The first one goes in any case: answers under way could fill every pass.
            if count <= room or place == 0:
                planned[number], room = count, max(0, room - count)
        # The oldest prompt gets the larger part, so that it ends; the next one is not left standing.
        for place, number in enumerate(prompts):
            share = room if place == len(prompts) - 1 else -(-room * 2 // 3)
            count = min(pending[number].tokens, share)
            if count:
                planned[number], room = count, room - count
        left = min(room, self.limits.near_free - sum(planned.values()))
        for number in answers:
            if planned.get(number) == pending[number].tokens and left > 0:
                guesses = min(pending[number].guesses, left)
                planned[number], left = planned[number] + guesses, left - guesses
        return planned
