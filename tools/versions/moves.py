"""Moves of aliases, kept as tags of the model: the intent before an alias moves, and then what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from watchkeeper.tools.errors import VersionError
from watchkeeper.tools.versions.records import Move, MoveState

_TAG = "watchkeeper.move."


def tag_of(move: Move) -> tuple[str, str]:
    """Return the key and the value under which a move is kept."""
    return f"{_TAG}{move.number:06}", move.model_dump_json()


def moves_of(tags: Mapping[str, str]) -> list[Move]:
    """Return the moves among the tags of a model, the oldest first.

    Raises:
        VersionError: If one cannot be read.
    """
    found = []
    for key in sorted(key for key in tags if key.startswith(_TAG)):
        try:
            found.append(Move.model_validate_json(tags[key]))
        except ValidationError as error:
            raise VersionError(f"the tag {key!r} holds no move of an alias: {tags[key]!r:.80}") from error
    return found


def settle(move: Move, now_names: int | None) -> Move:
    """Say what came of a move whose end is not written: every move is settled before the next one begins.

    Args:
        move: The move.
        now_names: The version that its alias names; None for none.
    """
    if move.state is not MoveState.INTENDED:
        return move
    took_place = now_names == move.after
    return move.model_copy(update={"state": MoveState.DONE if took_place else MoveState.NOT_DONE})


def followed_up(move: Move, done: Sequence[Move]) -> Move | None:
    """Return the first move of an alias after another one that holds; one that was taken back counts as none.

    Args:
        move: The one before.
        done: All that took place, the oldest first.
    """
    later = [one for one in done if one.alias == move.alias and one.number > move.number]
    undone = {one.undoes for one in later}
    undoable = {move.number, *(one.number for one in later)}
    holding = (one for one in later if one.number not in undone and one.undoes not in undoable)
    return next(holding, None)
