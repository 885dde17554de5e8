"""Shortening a conversation that does not fit, by one rule, and saying so.

System turns, the tools, the last user turn and everything after it stay. Of the other turns the oldest go
first, each as a whole, and a tool call goes together with its answers. One line stands in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from watchkeeper.models.errors import PromptTooLongError
from watchkeeper.models.interface import Message, Role, ToolSpec


@runtime_checkable
class TokenCounter(Protocol):
    """An engine that can tell how long a prompt is: what shortening needs."""

    @property
    def context_length(self) -> int:
        """How many tokens a prompt and its answer may have together."""
        ...

    def count_tokens(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int:
        """Return how many tokens the prompt of a conversation has.

        Raises:
            ValueError: If there is no message.
        """
        ...


@dataclass(frozen=True, slots=True)
class Trimmed:
    """A conversation that fits.

    Attributes:
        messages: The turns that stayed, with a line in place of those that did not.
        dropped: How many turns were left out; 0 where the conversation is as it was given.
    """

    messages: tuple[Message, ...]
    dropped: int


def trim(messages: Sequence[Message], count: Callable[[Sequence[Message]], int], limit: int) -> Trimmed:
    """Leave out as few of the oldest turns as it takes.

    Args:
        messages: The conversation.
        count: Tokens of a conversation's prompt, tools included.
        limit: Tokens that the prompt may have.

    Raises:
        PromptTooLongError: If what must stay is too long already.
    """
    if count(messages) <= limit:
        return Trimmed(tuple(messages), 0)
    groups = _droppable(messages)
    shortest = _without(messages, groups)
    needed = count(shortest.messages)
    if not groups or needed > limit:
        raise PromptTooLongError(
            f"the system turns, the tools and the last turns are {needed} tokens without any earlier turn, "
            f"but only {limit} fit beside the answer; shorten them, offer fewer tools or lower max_tokens"
        )
    too_few, enough = 0, len(groups)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        candidate = _without(messages, groups[:middle])
        if count(candidate.messages) <= limit:
            enough, shortest = middle, candidate
        else:
            too_few = middle
    return shortest


def _droppable(messages: Sequence[Message]) -> list[list[int]]:
    """Return the indices of turns that may go, oldest first, those together that go together."""
    users = [index for index, message in enumerate(messages) if message.role is Role.USER]
    groups: list[list[int]] = []
    for index, message in enumerate(messages[: users[-1]] if users else messages):
        if message.role is Role.TOOL and groups:
            groups[-1].append(index)
        elif message.role is not Role.SYSTEM:
            groups.append([index])
    return groups if users else groups[:-1]


def _without(messages: Sequence[Message], groups: Sequence[Sequence[int]]) -> Trimmed:
    gone = {index for group in groups for index in group}
    if not gone:
        return Trimmed(tuple(messages), 0)
    what = "1 earlier message was" if len(gone) == 1 else f"{len(gone)} earlier messages were"
    notice = Message(Role.USER, f"[{what} left out here for lack of room.]")
    kept: list[Message] = []
    for index, message in enumerate(messages):
        if index == min(gone):
            kept.append(notice)
        if index not in gone:
            kept.append(message)
    return Trimmed(tuple(kept), len(gone))
