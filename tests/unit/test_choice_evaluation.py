"""Comparing two ways on the same questions."""

from __future__ import annotations

import pytest

from watchkeeper.models.call_probe import answer_calls, call_questions
from watchkeeper.models.choice_evaluation import paired


def test_a_clear_gain_excludes_nothing_and_a_small_one_does_not() -> None:
    clear = paired([False] * 60 + [True] * 40, [True] * 90 + [False] * 10)
    assert (clear.gained, clear.lost) == (60, 10)
    assert clear.difference == pytest.approx(0.5)
    assert clear.low > 0.3
    assert clear.is_better
    small = paired([True, False, True, False], [True, True, True, False])
    assert small.difference == pytest.approx(0.25)
    assert not small.is_better


def test_losses_count_against_gains() -> None:
    same = paired([True] * 10 + [False] * 10, [False] * 10 + [True] * 10)
    assert same.difference == 0
    assert same.low < 0 < same.high
    assert not paired([True] * 50, [False] * 50).is_better


def test_the_interval_narrows_with_the_number_of_pairs() -> None:
    widths = []
    for count in (10, 100, 1000):
        found = paired([False] * count, [True, False] * (count // 2))
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)
    # The standard error of a share of one half.
    assert widths[-1] == pytest.approx(2 * 1.96 * (0.25 / 1000) ** 0.5, rel=0.1)


def test_questions_for_calls_offer_the_right_tool_and_name_its_arguments() -> None:
    questions = call_questions(60)
    assert questions == call_questions(60) != call_questions(60, seed=1)
    for question in questions:
        (spec,) = [tool for tool in question.tools if tool.name == question.name]
        assert set(spec.parameters["required"]) == set(question.arguments)
        assert all(str(value) in question.text for value in question.arguments.values())
    places = {[tool.name for tool in q.tools].index(q.name) for q in questions}
    assert places == {0, 1, 2}


def test_a_call_is_right_only_with_the_right_tool_and_arguments() -> None:
    from watchkeeper.models.interface import Generation, GenerationRequest, ToolCall, Usage

    questions = call_questions(12)

    class Answering:
        def __init__(self, change: bool) -> None:
            self.change = change
            self.adapters: set[str | None] = set()

        def generate(self, request: GenerationRequest, *, cancel: object = None) -> Generation:
            question = next(q for q in questions if q.text == request.messages[0].content)
            self.adapters.add(request.adapter)
            arguments = dict(question.arguments)
            if self.change:
                name = next(iter(arguments))
                arguments[name] = "something else"
            return Generation("", (ToolCall(question.name, arguments),), "stop", Usage())

    right, wrong = Answering(False), Answering(True)
    assert all(answer_calls(right, questions, adapter="tuned"))  # type: ignore[arg-type]
    assert not any(answer_calls(wrong, questions))  # type: ignore[arg-type]
    assert right.adapters == {"tuned"}
    assert wrong.adapters == {None}
