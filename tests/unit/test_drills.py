"""Drills: questions with known answers, whose held-out part shares nothing with the rest."""

from __future__ import annotations

import re
from dataclasses import fields
from itertools import pairwise

import pytest

from watchkeeper.agents.causes import BUILTIN_CAUSES
from watchkeeper.agents.drills import drills
from watchkeeper.agents.drills.held_out_kinds import HELD_OUT_KINDS, HELD_OUT_WORDS
from watchkeeper.agents.drills.kinds import FaultKind, Words
from watchkeeper.agents.drills.training_kinds import TRAINING_KINDS, TRAINING_WORDS
from watchkeeper.demo import vocabulary

WORDS_IN_A_ROW = 4


def _texts(kinds: tuple[FaultKind, ...], words: Words) -> list[str]:
    said = [text for kind in kinds for text in (*kind.texts, *kind.strong, *kind.weak)]
    said += [kind.cause.text for kind in kinds if kind.cause]
    said.append(words.stopped_cause.text)
    for group in (words.alerts, words.failing, words.passing, words.stopped, words.noise):
        said += group
    return said


def _phrases(texts: list[str]) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for text in texts:
        # A place is no wording: it ends a phrase.
        for part in re.split(r"\{\w+\}", text.lower()):
            row = re.findall(r"[a-z0-9-]+", part)
            found |= {tuple(row[i : i + WORDS_IN_A_ROW]) for i in range(len(row) - WORDS_IN_A_ROW + 1)}
    return found


def test_no_phrase_of_the_held_out_part_is_learned_from() -> None:
    learned = _phrases(_texts(TRAINING_KINDS, TRAINING_WORDS))
    held_out = _phrases(_texts(HELD_OUT_KINDS, HELD_OUT_WORDS))
    assert len(held_out) > 200
    assert learned & held_out == set()


def test_no_kind_cause_text_or_name_is_on_both_sides() -> None:
    sides = [(TRAINING_KINDS, TRAINING_WORDS), (HELD_OUT_KINDS, HELD_OUT_WORDS)]
    for (kinds, words), (others, other_words) in (sides, sides[::-1]):
        assert {kind.id for kind in kinds}.isdisjoint(kind.id for kind in others)
        causes = {text for kind in kinds for text in kind.texts} | {c.text for c in BUILTIN_CAUSES}
        assert causes.isdisjoint(text for kind in others for text in kind.texts if kinds is TRAINING_KINDS)
        for name in ("services", "hosts", "mounts", "configs"):
            assert set(getattr(words, name)).isdisjoint(getattr(other_words, name))
    topics = [{case.topic for case in drills(200, held_out=side)} for side in (False, True)]
    assert topics[0].isdisjoint(topics[1])


def test_the_demo_names_nothing_that_drills_name() -> None:
    demo = {*vocabulary.WEB_NAMES, *vocabulary.WORKER_NAMES, *vocabulary.HOST_NAMES}
    for words in (TRAINING_WORDS, HELD_OUT_WORDS):
        assert demo.isdisjoint({*words.services, *words.hosts})


@pytest.mark.parametrize("held_out", [False, True])
def test_every_question_has_one_right_answer_among_several(held_out: bool) -> None:
    made = drills(2000, seed=1, held_out=held_out)  # in rare draws nothing speaks for another cause
    assert len(made) == 2000
    for case in made:
        assert case.answer in case.options
        assert len(set(case.options)) == len(case.options) >= 2
        assert case.held_out is held_out
        assert "{" not in case.question
        assert all(f"- {option}" in case.question for option in case.options)


def test_the_right_answer_has_no_favoured_place_and_every_kind_its_turn() -> None:
    made = drills(1000, seed=5)
    pairs = [case.label for case in made if len(case.options) == 2]
    assert 0.35 < sum(pairs) / len(pairs) < 0.65
    counts = [sum(case.topic == kind.id for case in made) / kind.weight for kind in TRAINING_KINDS]
    assert max(counts) - min(counts) <= 1


def test_the_same_seed_makes_the_same_drills_and_another_others() -> None:
    assert drills(30, seed=1) == drills(30, seed=1)
    assert drills(30, seed=1) != drills(30, seed=2)


def test_without_evidence_a_question_tells_of_no_observation() -> None:
    for case in drills(50):
        assert case.neutral is not None
        told = [line for line in case.question.splitlines() if re.match(r"- (CRITICAL|WARNING): ", line)]
        assert not any(line in case.neutral for line in told)
        assert case.neutral_weight == 0.5


def test_that_a_service_was_stopped_is_right_about_as_often_as_it_is_a_consequence() -> None:
    stopped = "was killed or stopped"
    asked = [case for case in drills(1200) if any(stopped in option for option in case.options)]
    of_its_own = [case for case in asked if re.search(r"CRITICAL: service \S+ is not running", case.question)]
    right = sum(stopped in case.answer for case in of_its_own)
    assert len(of_its_own) > 150
    assert 0.35 < right / len(of_its_own) < 0.65


def test_worse_observations_stand_first() -> None:
    for case in drills(50):
        severities = re.findall(r"^- (CRITICAL|WARNING): ", case.question, re.MULTILINE)
        assert all(not (a == "WARNING" and b == "CRITICAL") for a, b in pairwise(severities))


def test_words_have_no_empty_group() -> None:
    for words in (TRAINING_WORDS, HELD_OUT_WORDS):
        assert all(getattr(words, field.name) for field in fields(words))
