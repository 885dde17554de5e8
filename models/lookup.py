"""Guesses of an answer's next tokens: what followed the same words before, in the prompt or in the answer.

Answers of agents repeat what they were told: names of hosts, paths, numbers. A guess is computed in the same
pass as the token before it and kept where the model then says the same, so answers are what they would be
without guesses, in fewer passes. It is prompt lookup decoding (Saxena 2023), a speculative decoding
(Leviathan et al. 2023, https://arxiv.org/abs/2211.17192) that needs no second model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

# Places that are looked at, the latest first, and how far words are compared there.
_PLACES = 16
_FAR = 8
# A single word counts where it has so many bytes: shorter ones are everywhere.
_WORD = 3


class Lookup:
    """Finds what followed the last tokens of a text before.

    Args:
        word: The bytes of a token. Tokens that differ by a leading space count as the same word, since a name
            begins with one in a sentence and with none behind a quotation mark.
        banned: Tokens that are never guessed, and end a guess.
    """

    def __init__(self, word: Callable[[int], bytes], banned: frozenset[int] = frozenset()) -> None:
        self._word = word
        self._banned = banned
        self._words: list[bytes] = []
        self._places: dict[bytes, list[int]] = {}

    def read(self, tokens: Sequence[int]) -> None:
        """Learn a text, which begins with that of the call before."""
        for token in tokens[len(self._words) :]:
            word = self._word(token).removeprefix(b" ")
            self._places.setdefault(word, []).append(len(self._words))
            self._words.append(word)

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """Guess the tokens that follow.

        Args:
            tokens: The text so far, which begins with that of the call before.
            most: How many at most.

        Returns:
            The guess, empty where nothing is like the end of the text.
        """
        self.read(tokens)
        last = len(self._words) - 1
        if most < 1 or last < 1:
            return []
        best, place = 0, -1
        for other in reversed(self._places[self._words[last]][-1 - _PLACES : -1]):
            alike = self._alike(other, last)
            if alike > best:
                best, place = alike, other
        if best < 2 and not (best and len(self._words[last]) >= _WORD):
            return []
        found: list[int] = []
        for token in tokens[place + 1 : place + 1 + min(most, best + 1)]:
            if token in self._banned:
                break
            found.append(token)
        return found

    def _alike(self, one: int, other: int) -> int:
        """Count the words before two places, and at them, that are the same."""
        count = 0
        while count < _FAR and one >= count and self._words[one - count] == self._words[other - count]:
            count += 1
        return count
