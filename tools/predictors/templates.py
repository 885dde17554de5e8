"""Templates of log lines, found while lines come in: what is constant in lines of one kind.

The method is Drain (He, Zhu, Zheng, Lyu: "Drain: An Online Log Parsing Approach with Fixed Depth Tree",
ICWS 2017): a tree of fixed depth leads, by the number of words and the first of them, to the few templates
that a line is compared with. Two things differ. Only words that are constant in a template count in the
comparison, so that a line with many numbers is no more alike for them. And memory is bounded: of too many
templates those go that were not seen for the longest time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from watchkeeper.tools.errors import ArtefactError
from watchkeeper.tools.predictors.masks import WILDCARD, bare, is_masked, mask

LENGTH_LIMIT = 4000  # characters of a line that are looked at
WORDS_LIMIT = 200
LEAF_LIMIT = 200  # templates that a line is compared with at most


@dataclass(frozen=True, slots=True)
class Template:
    """What is constant in lines of one kind.

    Attributes:
        id: Its number, never given to another one.
        words: Its words; ``<*>``, ``<n>``, ``<ip>`` … stand where lines differ.
        count: Lines of it so far.
    """

    id: int
    words: tuple[str, ...]
    count: int

    @property
    def text(self) -> str:
        """The template as a line."""
        return " ".join(self.words)


class _Kept(BaseModel):
    """A template as it is written down; ``place`` is its way through the tree."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int = Field(ge=0)
    words: tuple[str, ...]
    count: int = Field(ge=1)
    place: tuple[str, ...]


class _State(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(ge=3, le=10)
    similarity: float = Field(gt=0, le=1)
    children: int = Field(ge=1)
    limit: int = Field(ge=1)
    next_id: int = Field(ge=0)
    templates: tuple[_Kept, ...]


class TemplateMiner:
    """Finds templates in a stream of log lines; the same lines in the same order give the same templates.

    Args:
        depth: Levels of the tree as the paper counts them: root, number of words, first words, leaves.
        similarity: Share of a template's constant words that a line must have in common with it.
        children: Different words that a level tells apart; further ones share a place.
        limit: Templates that are kept.
    """

    def __init__(
        self, *, depth: int = 4, similarity: float = 0.65, children: int = 100, limit: int = 5000
    ) -> None:
        self._depth = depth
        self._similarity = similarity
        self._children = children
        self._limit = limit
        self._next_id = 0
        # The least recently seen first.
        self._templates: OrderedDict[int, Template] = OrderedDict()
        self._places: dict[int, tuple[str, ...]] = {}
        self._leaves: dict[tuple[str, ...], list[int]] = {}
        self._below: dict[tuple[str, ...], dict[str, int]] = {}

    @property
    def templates(self) -> tuple[Template, ...]:
        """All templates that are kept, by number."""
        return tuple(self._templates[number] for number in sorted(self._templates))

    def learn(self, line: str) -> Template:
        """Find the template of a line, make it more general where the line differs, or make a new one."""
        words = words_of(line)
        place = self._place(words, grow=True)
        best = self._best(place, words)
        if best is None:
            return self._add(words, place)
        merged = tuple(
            old if old == new else WILDCARD if bare(old) != bare(new) else bare(old)
            for old, new in zip(best.words, words, strict=True)
        )
        made = Template(best.id, merged, best.count + 1)
        self._templates[best.id] = made
        self._templates.move_to_end(best.id)
        return made

    def match(self, line: str) -> Template | None:
        """Return the template of a line without learning from it; None if none is alike enough."""
        return self.match_words(words_of(line))

    def match_words(self, words: tuple[str, ...]) -> Template | None:
        """Do what `match` does with a line that is masked and split already."""
        return self._best(self._place(words, grow=False), words)

    def to_json(self) -> dict[str, JsonValue]:
        """Return all that is known, for `from_json`."""
        state = _State(
            depth=self._depth,
            similarity=self._similarity,
            children=self._children,
            limit=self._limit,
            next_id=self._next_id,
            templates=tuple(
                _Kept(id=kept.id, words=kept.words, count=kept.count, place=self._places[kept.id])
                for kept in self._templates.values()
            ),
        )
        dumped: dict[str, JsonValue] = state.model_dump(mode="json")
        return dumped

    @classmethod
    def from_json(cls, data: Any) -> TemplateMiner:
        """Go on where another miner stopped.

        Raises:
            ArtefactError: If the data were not written by `to_json`.
        """
        try:
            state = _State.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "templates"
            raise ArtefactError(f"templates of log lines are damaged: {place}: {first['msg']}") from error
        made = cls(depth=state.depth, similarity=state.similarity, children=state.children, limit=state.limit)
        for kept in state.templates:
            made._keep(Template(kept.id, kept.words, kept.count), kept.place)
        for leaf in made._leaves.values():
            leaf.sort()
        made._next_id = state.next_id
        return made

    def _place(self, words: tuple[str, ...], *, grow: bool) -> tuple[str, ...]:
        """Return the way of a line through the tree: its number of words, and the first of them."""
        place: tuple[str, ...] = (str(len(words)),)
        for word in words[: self._depth - 2]:
            below = self._below.get(place, {})
            step = WILDCARD if _varies(word) else word
            if step not in below and (len(below) >= self._children or not grow):
                step = WILDCARD
            place = (*place, step)
        return place

    def _best(self, place: tuple[str, ...], words: tuple[str, ...]) -> Template | None:
        best: Template | None = None
        score = (self._similarity, -len(words) - 1)
        for number in self._leaves.get(place, ()):
            template = self._templates[number]
            found = _alike(template.words, words)
            if found > score:
                best, score = template, found
        return best

    def _add(self, words: tuple[str, ...], place: tuple[str, ...]) -> Template:
        leaf = self._leaves.get(place, [])
        if len(leaf) >= LEAF_LIMIT:
            self._forget(next(number for number in self._templates if self._places[number] == place))
        elif len(self._templates) >= self._limit:
            self._forget(next(iter(self._templates)))
        made = Template(self._next_id, words, 1)
        self._next_id += 1
        self._keep(made, place)
        return made

    def _keep(self, template: Template, place: tuple[str, ...]) -> None:
        self._templates[template.id] = template
        self._places[template.id] = place
        self._leaves.setdefault(place, []).append(template.id)
        for level in range(1, len(place)):
            below = self._below.setdefault(place[:level], {})
            below[place[level]] = below.get(place[level], 0) + 1

    def _forget(self, number: int) -> None:
        del self._templates[number]
        place = self._places.pop(number)
        self._leaves[place].remove(number)
        if not self._leaves[place]:
            del self._leaves[place]
        for level in range(1, len(place)):
            below = self._below[place[:level]]
            below[place[level]] -= 1
            if not below[place[level]]:
                del below[place[level]]
            if not below:
                del self._below[place[:level]]


def words_of(line: str) -> tuple[str, ...]:
    """Mask a line and split it into words."""
    return tuple(mask(line[:LENGTH_LIMIT]).split()[:WORDS_LIMIT])


def _varies(word: str) -> bool:
    return is_masked(word) or any(letter.isdigit() for letter in word)


def _alike(template: tuple[str, ...], words: tuple[str, ...]) -> tuple[float, int]:
    """Return the share of constant words in common, and how few places are open (fewer open ones win)."""
    constant = same = wildcards = 0
    for old, new in zip(template, words, strict=True):
        if old == WILDCARD:
            wildcards += 1
        elif old == new:
            if not is_masked(old):
                constant += 1
                same += 1
        elif not (is_masked(old) and bare(old) == bare(new)):
            constant += 1
    return (same / constant if constant else 1.0), -wildcards
