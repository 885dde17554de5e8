"""Text is shown as soon as it is certain, and never past a stop."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.models.detokenize import AnswerReader, TextStream
from watchkeeper.models.grammar import AnswerKind, CallTags

CALL = json.dumps({"name": "a", "arguments": {"x": "é"}})


@given(
    st.text(st.characters(codec="utf-8")), st.lists(st.text(min_size=1, max_size=3), max_size=2), st.data()
)
def test_pieces_add_up_to_the_text_before_the_first_stop(
    text: str, stop: list[str], data: st.DataObject
) -> None:
    encoded = text.encode("utf-8", "surrogatepass") if text.isprintable() else text.encode("utf-8", "replace")
    text = encoded.decode("utf-8", "replace")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=5)))
    stream = TextStream(stop)
    shown = ""
    for start, end in zip([0, *cuts], [*cuts, len(encoded)], strict=True):
        shown += stream.push(encoded[start:end])
        assert not any(mark in shown for mark in stop)
    shown += stream.finish()
    ends = [text.find(mark) for mark in stop if mark in text]
    expected = text[: min(ends)] if ends else text
    assert expected.startswith(shown) if ends else shown == expected
    assert shown == stream.text


def test_half_a_character_is_held_back() -> None:
    stream = TextStream()
    first, second = "é".encode()[:1], "é".encode()[1:]
    assert stream.push(b"a" + first) == "a"
    assert stream.push(second) == "é"


def test_what_may_become_a_stop_is_held_back_and_given_if_it_does_not() -> None:
    stream = TextStream(["END"])
    assert stream.push(b"one E") == "one "
    assert stream.push(b"N") == ""
    assert stream.push(b"O ") == "ENO "
    assert stream.push(b"EN") == ""
    assert stream.push(b"D two") == ""
    assert stream.stopped
    assert stream.finish() == ""
    assert stream.text == "one ENO "


def read(answer: str, kind: AnswerKind | None, tags: CallTags) -> AnswerReader:
    reader = AnswerReader(kind, tags, lambda token: bytes([token]), ())
    for part in answer.replace("<tool_call>", "\1").replace("</tool_call>", "\2").encode():
        if tags.native or part > 2:
            reader.push({1: 1000, 2: 1001}.get(part, part))
        else:
            for byte in (tags.opening if part == 1 else tags.closing).encode():
                reader.push(byte)
    reader.finish()
    return reader


@pytest.mark.parametrize("tags", [CallTags(), CallTags(opening_id=1000, closing_id=1001)])
@pytest.mark.parametrize("answer", [f"<tool_call>\n{CALL}\n</tool_call>", CALL, f"```json\n{CALL}\n```"])
def test_every_way_to_write_a_call_is_read_as_one(answer: str, tags: CallTags) -> None:
    reader = read(answer, AnswerKind.TEXT_OR_CALL, tags)
    assert reader.calls == [{"name": "a", "arguments": {"x": "é"}}]
    assert reader.text == ""


@pytest.mark.parametrize("answer", ["", "`", "```bash\nls```", "hello {", "``", "```js"])
def test_a_text_is_read_as_one(answer: str) -> None:
    reader = read(answer, AnswerKind.TEXT_OR_CALL, CallTags())
    assert reader.calls == []
    assert reader.text == answer


def test_a_text_may_come_before_a_call() -> None:
    tags = CallTags(opening_id=1000, closing_id=1001)
    reader = read(f"Look:\n<tool_call>\n{CALL}\n</tool_call>", AnswerKind.TEXT_OR_CALL, tags)
    assert reader.text == "Look:\n"
    assert [call["name"] for call in reader.calls] == ["a"]
