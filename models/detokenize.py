"""From tokens to text while they arrive: no half characters, no text past a stop."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Sequence
from typing import Any

from watchkeeper.models.grammar import AnswerKind, CallTags
from watchkeeper.models.numerals import read_float

_CALLS = json.JSONDecoder(parse_float=read_float)


class TextStream:
    """Turns the bytes of tokens into text and ends it at the first stop text.

    Args:
        stop: Texts that end the answer; they are not part of it.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(text for text in stop if text)
        self._longest = max((len(text) for text in self._stop), default=0)
        self._held = ""
        self._parts: list[str] = []
        self.stopped = False
        """Whether a stop text was found."""

    @property
    def text(self) -> str:
        """Everything released so far."""
        return "".join(self._parts)

    def push(self, data: bytes) -> str:
        """Add bytes and return the text that can be shown now.

        What may be the beginning of a stop text, or of a character, is held back.
        """
        return self._release(self._decoder.decode(data), final=False)

    def finish(self) -> str:
        """Return what was held back, now that nothing follows."""
        return self._release(self._decoder.decode(b"", final=True), final=True)

    def _release(self, text: str, *, final: bool) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            ready, self._held = self._held[: min(found)], ""
        elif final:
            ready, self._held = self._held, ""
        else:
            cut = len(self._held) - self._overlap()
            ready, self._held = self._held[:cut], self._held[cut:]
        if ready:
            self._parts.append(ready)
        return ready

    def _overlap(self) -> int:
        """Return how many last characters could begin a stop text."""
        for length in range(min(self._longest - 1, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stop):
                return length
        return 0


class AnswerReader:
    """Parts an answer into its text and its tool calls, token by token.

    Args:
        kind: What the grammar produces; None for free text.
        tags: How the family marks a call.
        decode: Bytes of one token.
        stop: Texts that end a free text.
    """

    def __init__(
        self, kind: AnswerKind | None, tags: CallTags, decode: Callable[[int], bytes], stop: Sequence[str]
    ) -> None:
        self._kind = kind
        self._tags = tags
        self._decode = decode
        self._text = TextStream(stop if kind in {None, AnswerKind.TEXT_OR_CALL} else ())
        self._openings: tuple[bytes, ...] = (b"{", b"```json")
        if tags.opening and not tags.native:
            self._openings += (tags.opening.encode(),)
        self._head: bytes | None = b"" if kind is AnswerKind.TEXT_OR_CALL else None
        self._call = b""
        self.in_call = kind is AnswerKind.CALL
        """Whether the answer has reached a tool call."""

    @property
    def text(self) -> str:
        """The text so far."""
        return self._text.text

    @property
    def stopped(self) -> bool:
        """Whether a stop text was found."""
        return self._text.stopped

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The calls that are whole by now, each with its ``name`` and ``arguments``, whatever the family."""
        found: list[dict[str, Any]] = []
        written = self._call.decode("utf-8", "replace") if self.in_call else ""
        at = written.find("{")
        while at >= 0:
            try:
                value, end = _CALLS.raw_decode(written, at)
            except json.JSONDecodeError:
                break
            found.append({"name": value["name"], "arguments": value[self._tags.arguments]})
            at = written.find("{", end)
        return found

    def push(self, token: int) -> str:
        """Add a token and return the text that can be shown now."""
        if self._tags.native and token in {self._tags.opening_id, self._tags.closing_id}:
            self.in_call = True
            return self.finish()
        data = self._decode(token)
        if self._head is not None:
            data = self._head = self._head + data
            if any(opening.startswith(data) and opening != data for opening in self._openings):
                return ""
            self._head = None
            self.in_call = data.startswith(self._openings)
        if self.in_call:
            self._call += data
            return ""
        return self._text.push(data)

    def finish(self) -> str:
        """Return what was held back, now that nothing follows."""
        head, self._head = self._head, None
        return (self._text.push(head) if head else "") + self._text.finish()
