"""A conversation that does not fit loses its oldest turns, whole, and says how many."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.models.errors import PromptTooLongError
from watchkeeper.models.interface import Message, Role, ToolCall, assistant, system, user
from watchkeeper.models.trimming import Trimmed, trim


def letters(messages: Sequence[Message]) -> int:
    """A token a letter, and ten for a turn's frame; the notice costs what its words cost."""
    return sum(len(message.content) + 10 for message in messages)


def tool(content: str, call: str) -> Message:
    return Message(Role.TOOL, content, tool_call_id=call)


def calling(*ids: str) -> Message:
    return assistant("", [ToolCall("look", {}, call) for call in ids])


def contents(trimmed: Trimmed) -> list[str]:
    return [message.content for message in trimmed.messages]


LONG = "x" * 200


def test_what_fits_is_left_alone() -> None:
    talk = [system("rules"), user("one"), assistant("two"), user("three")]
    assert trim(talk, letters, 1000) == Trimmed(tuple(talk), 0)


def test_the_oldest_turns_go_first_and_a_line_stands_in_their_place() -> None:
    talk = [system("rules"), user(LONG), assistant(LONG), user("b"), assistant("c"), user("last")]
    trimmed = trim(talk, letters, 200)
    assert trimmed.dropped == 2
    assert contents(trimmed) == [
        "rules",
        "[2 earlier messages were left out here for lack of room.]",
        "b",
        "c",
        "last",
    ]
    assert trimmed.messages[1].role is Role.USER


def test_no_more_is_left_out_than_needed() -> None:
    talk = [user(LONG), assistant("short"), user("b"), assistant("c"), user("last")]
    assert trim(talk, letters, 200).dropped == 1
    assert contents(trim(talk, letters, 200))[0] == "[1 earlier message was left out here for lack of room.]"


def test_a_call_goes_together_with_all_its_answers() -> None:
    talk = [calling("a", "b"), tool(LONG, "a"), tool("short", "b"), assistant("so"), user("last")]
    trimmed = trim(talk, letters, 150)
    assert trimmed.dropped == 3
    assert all(message.role is not Role.TOOL for message in trimmed.messages)


def test_system_turns_and_all_since_the_last_user_turn_stay() -> None:
    talk = [user(LONG), system("new rules"), user("go"), calling("a"), tool("done", "a")]
    trimmed = trim(talk, letters, 150)
    assert trimmed.messages[1:] == tuple(talk[1:])
    with pytest.raises(PromptTooLongError, match="only 60 fit"):
        trim(talk, letters, 60)


def test_where_nothing_may_go_the_error_says_how_much_too_long_it_is() -> None:
    with pytest.raises(PromptTooLongError, match="are 210 tokens without any earlier turn, but only 100 fit"):
        trim([user(LONG)], letters, 100)


def test_without_a_user_turn_the_last_turn_stays() -> None:
    trimmed = trim([system("rules"), assistant(LONG), calling("a"), tool("done", "a")], letters, 150)
    assert trimmed.dropped == 1
    assert trimmed.messages[-1].content == "done"


@given(
    st.lists(st.tuples(st.sampled_from(list(Role)), st.integers(0, 60)), min_size=1, max_size=12),
    st.integers(60, 600),
)
def test_whatever_is_left_fits_and_keeps_its_order(shape: list[tuple[Role, int]], limit: int) -> None:
    talk = [Message(role, f"{index}:" + "x" * size) for index, (role, size) in enumerate(shape)]
    try:
        trimmed = trim(talk, letters, limit)
    except PromptTooLongError:
        return
    assert letters(trimmed.messages) <= limit
    kept = [message for message in trimmed.messages if message in talk]
    assert kept == [message for message in talk if message in kept]
    assert len(kept) + trimmed.dropped == len(talk)
    assert [message for message in talk if message.role is Role.SYSTEM] == [
        message for message in kept if message.role is Role.SYSTEM
    ]
    users = [index for index, message in enumerate(talk) if message.role is Role.USER]
    if users:
        assert kept[-len(talk[users[-1] :]) :] == talk[users[-1] :]
