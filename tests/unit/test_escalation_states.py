"""An escalation goes on by what happened and the time alone, and whatever happens it comes to one end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.runtime.errors import EscalationError
from watchkeeper.runtime.escalation_rules import EscalationRules
from watchkeeper.runtime.escalation_states import (
    Acknowledge,
    Answered,
    CallDue,
    Delegate,
    Escalation,
    EscalationStatus,
    QuestionDue,
    Signal,
    advance,
    begin,
)

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RULES = EscalationRules.model_validate(
    {
        "people": {"alice": {}, "bob": {}, "carol": {}},
        "rotations": {
            "primary": {
                "zone": "UTC",
                "every": "day",
                "at": "12:10",
                "start": "2026-01-05",
                "members": ["carol", "bob"],
            }
        },
        "policies": {
            "p": {
                "levels": [
                    {"who": {"users": ["alice"]}, "wait": "5m", "repeat": 1},
                    {"who": {"rotations": ["primary"]}, "wait": "10m"},
                ]
            },
            "late": {
                "hours": {"zone": "UTC", "from": "08:00", "until": "11:00", "outside": 2},
                "levels": [{"who": {"users": ["alice"]}, "wait": "5m"}, {"who": {"users": ["bob"]}}],
            },
        },
    }
)


def begun(policy: str = "p", *, question: bool = True) -> Escalation:
    return begin(
        id="ESC-1",
        incident_id="INC-1",
        policy=policy,
        rules=RULES,
        subject="s",
        at=START,
        approval_id="APR-1" if question else "",
        ends_at=START + 60 * MINUTE if question else None,
    )


def test_silence_goes_through_all_levels_to_a_no() -> None:
    now = begun()
    seen = [(now.level, now.round, now.called, now.due_at)]
    while now.due_at is not None:
        assert advance(now, CallDue(now.step), now.due_at - timedelta(microseconds=1)) == now
        now = advance(now, CallDue(now.step), now.due_at)
        seen.append((now.level, now.round, now.called, now.due_at))
    assert seen == [
        (1, 0, ("alice",), START + 5 * MINUTE),
        (1, 1, ("alice",), START + 10 * MINUTE),
        (2, 0, ("carol",), START + 20 * MINUTE),
        (2, 0, ("carol",), None),
    ]
    assert now.status is EscalationStatus.SILENT
    assert now.reason == "nobody reacted; people were called 3 times, the last time carol"


def test_where_one_of_two_said_yes_the_other_has_until_the_questions_deadline() -> None:
    now = begun()
    while now.due_at is not None:
        now = advance(now, CallDue(now.step, votes=1), now.due_at)
    assert (now.status, now.step, now.ends_at) == (EscalationStatus.WAITING, 3, START + 60 * MINUTE)
    assert advance(now, CallDue(now.step, votes=1), START + 59 * MINUTE) == now
    over = advance(now, QuestionDue(votes=1), START + 60 * MINUTE)
    assert over.status is EscalationStatus.SILENT
    assert over.reason == "only 1 said yes before the question's deadline; people were called 3 times"


def test_who_is_on_call_is_looked_up_when_they_are_called() -> None:
    now = begun()
    for minutes in (11, 22):
        now = advance(now, CallDue(now.step), START + minutes * MINUTE)
    assert now.called == ("carol",)
    late = advance(begun(), CallDue(1), START + 60 * 24 * MINUTE)
    assert advance(late, CallDue(2), START + 60 * 24 * MINUTE + 11 * MINUTE).called == ("bob",)


def test_nobody_is_passed_over_whose_time_ran_out_while_nothing_ran() -> None:
    now = advance(begun(), CallDue(1), START + 180 * MINUTE)
    assert now.due_at == START + 185 * MINUTE


def test_outside_of_business_hours_another_level_is_called_first() -> None:
    now = begun("late")
    assert (now.level, now.called, now.due_at) == (2, ("bob",), None)


def test_an_acknowledgement_stops_the_next_level_but_not_the_question() -> None:
    now = advance(begun(), Acknowledge("alice"), START + MINUTE)
    assert (now.status, now.due_at, now.acknowledged_by) == (EscalationStatus.ACKNOWLEDGED, None, "alice")
    assert advance(now, CallDue(1), START + 30 * MINUTE) == now
    assert advance(now, Acknowledge("alice"), START + 2 * MINUTE) == now
    with pytest.raises(EscalationError, match="by 'alice' before"):
        advance(now, Acknowledge("bob"), START + 2 * MINUTE)
    over = advance(now, QuestionDue(), START + 60 * MINUTE)
    assert over.status is EscalationStatus.SILENT
    assert "alice acknowledged it, and nobody answered" in over.reason


def test_a_late_acknowledgement_is_refused() -> None:
    with pytest.raises(EscalationError, match="its question expired at 2026-01-05 13:00:00"):
        advance(begun(), Acknowledge("alice"), START + 60 * MINUTE)
    over = advance(begun(), Answered("bob"), START)
    assert over.reason == "bob answered"
    with pytest.raises(EscalationError, match="is over since 2026-01-05 12:00:00 UTC: bob answered"):
        advance(over, Acknowledge("alice"), START + MINUTE)


def test_who_was_handed_a_call_has_its_whole_time_and_then_the_next_level_is_called() -> None:
    now = advance(begun(), Delegate("alice", "bob"), START + 4 * MINUTE)
    assert (now.called, now.due_at, now.level) == (("bob",), START + 9 * MINUTE, 1)
    assert advance(now, CallDue(1), START + 9 * MINUTE) == now  # the timer of the call before
    following = advance(now, CallDue(2), START + 9 * MINUTE)
    assert (following.level, following.delegated_by) == (2, "")
    with pytest.raises(EscalationError, match="waits for 'bob' alone already"):
        advance(now, Delegate("alice", "bob"), START + 5 * MINUTE)
    taken = advance(now, Acknowledge("bob"), START + 5 * MINUTE)
    back = advance(taken, Delegate("bob", "alice"), START + 6 * MINUTE)
    assert (back.status, back.acknowledged_by) == (EscalationStatus.WAITING, "")


def test_a_hand_over_waits_for_somebody_and_has_no_deadline_of_its_own() -> None:
    now = begun(question=False)
    assert advance(now, QuestionDue(), START + 10_000 * MINUTE) == now
    assert advance(now, Acknowledge("alice"), START + 10_000 * MINUTE).acknowledged_by == "alice"


SIGNALS = st.one_of(
    st.builds(CallDue, st.integers(1, 6)),
    st.just(QuestionDue()),
    st.builds(Answered, st.just("carol")),
    st.builds(Acknowledge, st.sampled_from(["alice", "bob"])),
    st.builds(Delegate, st.just("alice"), st.sampled_from(["bob", "carol"])),
)


@given(
    policy=st.sampled_from(["p", "late"]),
    question=st.booleans(),
    steps=st.lists(st.tuples(SIGNALS, st.integers(0, 900)), max_size=25),
)
def test_whatever_happens_it_goes_forward_only_and_ends_once(
    policy: str, question: bool, steps: list[tuple[Signal, int]]
) -> None:
    now, at = begun(policy, question=question), START
    for signal, seconds in steps:
        at += timedelta(seconds=seconds)
        before = now
        try:
            now = advance(before, signal, at)
        except EscalationError:
            assert isinstance(signal, Acknowledge | Delegate)
            continue
        assert advance(now, signal, at) == now if not isinstance(signal, Delegate) else True
        assert before.step <= now.step <= before.step + 1
        assert now.level in {before.level, before.level + 1}
        if before.status.ended:
            assert now == before
        if now.step > before.step:
            assert now.status is EscalationStatus.WAITING
            assert now.called
            if isinstance(signal, CallDue):
                assert before.due_at is not None
                assert at >= before.due_at
                assert before.status is EscalationStatus.WAITING
        if now.due_at is not None:
            assert now.status is EscalationStatus.WAITING
            assert now.due_at > now.started_at
        if now.status is EscalationStatus.ACKNOWLEDGED:
            assert now.acknowledged_by
        if now.status.ended:
            assert now.reason
            assert now.ended_at is not None


@given(late=st.lists(st.integers(0, 3600), min_size=3, max_size=3))
def test_with_timers_alone_every_level_is_called_and_then_there_is_silence(late: list[int]) -> None:
    now, at, levels = begun(question=False), START, [1]
    for seconds in late:
        assert now.due_at is not None
        at = max(at, now.due_at) + timedelta(seconds=seconds)
        now = advance(now, CallDue(now.step), at)
        levels.append(now.level)
    assert levels == [1, 1, 2, 2]
    assert now.status is EscalationStatus.SILENT
