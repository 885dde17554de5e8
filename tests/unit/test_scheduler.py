"""Who is computed next, without a tensor: room, order, fairness and bounds of a pass."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.models.errors import BusyError, CapacityError
from watchkeeper.models.scheduler import AGING, Limits, Pending, Scheduler

ANSWER, PROMPT = Pending(1), Pending(1000, prompt=True)


def running(limits: Limits, *needs: int) -> Scheduler:
    scheduler = Scheduler(limits)
    for number, need in enumerate(needs):
        scheduler.submit(number, need)
    scheduler.admit()
    return scheduler


def test_requests_run_in_the_order_they_came_while_there_is_room() -> None:
    scheduler = running(Limits(kv_tokens=100), 60, 30, 30, 5)
    assert scheduler.running == (0, 1)
    scheduler.leave(0)
    assert scheduler.admit() == [2, 3]


def test_a_large_request_is_not_passed_for_ever_by_small_ones() -> None:
    scheduler = running(Limits(kv_tokens=100), 60, 90)
    scheduler.submit(2, 10)
    assert scheduler.admit() == []
    scheduler.leave(0)
    assert scheduler.admit() == [1, 2]


def test_one_that_is_not_ready_holds_up_nobody() -> None:
    scheduler = Scheduler(Limits())
    for number in range(3):
        scheduler.submit(number, 10)
    assert scheduler.admit(lambda number: number != 0) == [1, 2]
    assert scheduler.waiting == (0,)


def test_only_so_many_run_and_wait() -> None:
    scheduler = running(Limits(running=2, waiting=3), 1, 1, 1)
    assert (scheduler.running, scheduler.waiting) == ((0, 1), (2,))
    scheduler.submit(3, 1)
    scheduler.submit(4, 1)
    with pytest.raises(BusyError, match="3 requests wait already"):
        scheduler.submit(5, 1)


def test_what_never_fits_is_refused_with_the_number_that_would() -> None:
    with pytest.raises(CapacityError, match=r"150 tokens .* within 100"):
        Scheduler(Limits(kv_tokens=100)).submit(0, 150)


def test_a_higher_priority_goes_first_but_nobody_waits_for_ever() -> None:
    scheduler = Scheduler(Limits(running=1))
    scheduler.submit(0, 1)
    scheduler.submit(1, 1, priority=2)
    assert scheduler.waiting == (1, 0)
    for number in range(2, 10 * AGING):
        scheduler.leave(number - 1)
        if 0 in scheduler.admit():
            break
        scheduler.submit(number, 1, priority=2)
        scheduler.plan({})
    else:
        pytest.fail("the first request never ran")
    assert number < 5 * AGING


def test_answers_go_before_prompts_and_prompts_take_what_is_left() -> None:
    scheduler = running(Limits(step_tokens=10), 1, 1, 1)
    planned = scheduler.plan({0: PROMPT, 1: ANSWER, 2: Pending(4)})
    assert planned == {1: 1, 2: 4, 0: 5}


def test_a_long_prompt_leaves_something_to_the_next_one() -> None:
    scheduler = running(Limits(step_tokens=90), 1, 1, 1)
    planned = scheduler.plan({0: PROMPT, 1: PROMPT, 2: PROMPT})
    assert planned == {0: 60, 1: 20, 2: 10}


def test_what_must_be_whole_is_whole_even_beside_many_answers() -> None:
    scheduler = running(Limits(step_tokens=4), *[1] * 6)
    planned = scheduler.plan({0: Pending(50, whole=True), **dict.fromkeys(range(1, 6), ANSWER)})
    assert planned[0] == 50
    two = scheduler.plan({0: Pending(50, whole=True), 1: Pending(60, whole=True)})
    assert two == {0: 50}


def test_limits_that_make_no_sense_are_refused() -> None:
    for name in ("step_tokens", "running", "waiting", "kv_tokens"):
        with pytest.raises(ValueError, match=name):
            Limits(**{name: 0})


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30), st.integers(0, 3)), min_size=1, max_size=30),
    st.integers(1, 16),
    st.integers(1, 5),
)
def test_everything_is_computed_within_the_bounds(
    jobs: list[tuple[int, int, int]], step: int, together: int
) -> None:
    scheduler = Scheduler(Limits(step_tokens=step, running=together, kv_tokens=120))
    left = {}
    for number, (prompt, answer, priority) in enumerate(jobs):
        scheduler.submit(number, prompt + answer, priority)
        left[number] = [prompt, answer]
    for _ in range(10_000):
        scheduler.admit()
        assert len(scheduler.running) <= together
        assert scheduler.reserved <= 120
        pending = {n: Pending(left[n][0], prompt=True) if left[n][0] else ANSWER for n in scheduler.running}
        planned = scheduler.plan(pending)
        assert sum(planned.values()) <= step
        assert planned, "a pass that computes nothing would be the last one"
        for number, count in planned.items():
            assert 0 < count <= pending[number].tokens
            left[number][0 if left[number][0] else 1] -= count
            if left[number] == [0, 0]:
                scheduler.leave(number)
                del left[number]
        if not left:
            return
    pytest.fail(f"{len(left)} requests never ended")


def test_guesses_ride_along_where_a_pass_is_small_and_nowhere_else() -> None:
    guessing = Pending(1, guesses=4)
    scheduler = running(Limits(near_free=8), 100, 100, 100)
    assert scheduler.plan({0: guessing}) == {0: 5}
    assert scheduler.plan({0: guessing, 1: guessing, 2: ANSWER}) == {0: 5, 1: 2, 2: 1}
    assert scheduler.plan({0: guessing, 1: PROMPT}) == {0: 1, 1: 127}
    assert scheduler.plan({0: Pending(20, guesses=4)}) == {0: 20}
    assert running(Limits(near_free=1), 100).plan({0: guessing}) == {0: 1}


def test_guesses_never_take_the_room_of_what_is_known() -> None:
    scheduler = running(Limits(step_tokens=3, near_free=8), 100, 100)
    assert scheduler.plan({0: Pending(2, guesses=4), 1: ANSWER}) == {0: 2, 1: 1}
    assert scheduler.plan({0: Pending(2, guesses=4)}) == {0: 3}
    assert scheduler.plan({0: Pending(4, guesses=4)}) == {0: 3}
