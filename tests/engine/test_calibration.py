"""What probabilities are worth: fitted on known answers, measured on others, kept beside the model."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import re
from pathlib import Path

import pytest

from tests import tiny
from watchkeeper.agents.causes import BUILTIN_CAUSES
from watchkeeper.cli.models_calibrate import show
from watchkeeper.models.calibration import (
    Calibration,
    Scale,
    calibration_path,
    read_calibration,
    write_calibration,
)
from watchkeeper.models.calibration_cases import (
    LabelledCase,
    built_in_cases,
    digest_of,
    read_cases,
)
from watchkeeper.models.calibration_faults import AREAS, FAULTS
from watchkeeper.models.calibration_fit import ScoredCase, calibrate, fit, quality, score_cases
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.errors import CalibrationError
from watchkeeper.models.interface import Choice, ChoiceRequest, ModelIdentity, ScoredOption, Usage, user
from watchkeeper.models.options import EngineOptions
from watchkeeper.models.reliability_plot import draw_reliability, interval
from watchkeeper.models.scoring import softmax
from watchkeeper.models.scripted import ScriptedEngine

IDENTITY = ModelIdentity("tiny", "none", "0" * 64)
GIVEN = [-12.0, -9.5, -20.0]
WITHOUT = [-11.0, -6.0, -19.0]
LENGTHS = [4, 2, 9]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_without_a_calibration_shares_are_the_softmax_of_the_scores(weight: float) -> None:
    assert Calibration().shares(GIVEN, None, LENGTHS) == pytest.approx(softmax(GIVEN))
    corrected = [given - weight * without for given, without in zip(GIVEN, WITHOUT, strict=True)]
    shares = Calibration().shares(GIVEN, WITHOUT, LENGTHS, neutral_weight=weight)
    assert shares == pytest.approx(softmax(corrected))
    assert Calibration().scores(GIVEN, WITHOUT, neutral_weight=weight) == pytest.approx(corrected)
    assert Calibration().digest == ""


def test_a_calibration_scales_by_temperature_length_and_its_own_weight() -> None:
    found = Calibration(
        plain=Scale(temperature=2, length_exponent=1),
        corrected=Scale(temperature=3, length_exponent=0.5, neutral_weight=0.25),
    )

    assert found.shares(GIVEN, None, LENGTHS) == pytest.approx(softmax([-12 / 8, -9.5 / 4, -20 / 18]))
    expected = [(-12 + 11 / 4) / 6, (-9.5 + 6 / 4) / (3 * math.sqrt(2)), (-20 + 19 / 4) / 9]
    assert found.shares(GIVEN, WITHOUT, LENGTHS, neutral_weight=1.0) == pytest.approx(softmax(expected))
    assert len(found.digest) == 64


def test_what_is_impossible_gets_no_share_and_nothing_possible_gets_equal_shares() -> None:
    assert Calibration().shares([-math.inf, -3.0], None, [1, 1]) == [0.0, 1.0]
    assert Calibration().shares([-math.inf, -math.inf], None, [1, 1]) == [0.5, 0.5]


def drawn(count: int, temperature: float, weight: float, seed: int) -> list[ScoredCase]:
    """Cases whose answers come from a known calibration; every third topic is held out."""
    rng = random.Random(seed)
    cases = []
    for number in range(count):
        size = rng.randint(3, 6)
        neutral = [rng.gauss(-20, 4) for _ in range(size)]
        given = [rng.gauss(0, 6) + weight * without for without in neutral]
        scores = [
            (score - weight * without) / temperature for score, without in zip(given, neutral, strict=True)
        ]
        label = rng.choices(range(size), softmax(scores))[0]
        topic = f"topic {number % 60}"
        cases.append(
            ScoredCase(tuple(given), tuple(neutral), (3,) * size, label, topic, number % 60 % 3 == 2)
        )
    return cases


def test_a_fit_finds_the_calibration_that_the_answers_came_from() -> None:
    found = fit(drawn(3000, temperature=4.0, weight=0.6, seed=1)).corrected

    assert found.neutral_weight == pytest.approx(0.6, abs=0.11)
    assert found.temperature == pytest.approx(4.0, rel=0.15)
    # All options are equally long: dividing by a length changes nothing but the temperature.
    assert found.length_exponent == 0


def test_a_fit_finds_that_length_matters() -> None:
    rng = random.Random(5)
    cases = []
    for number in range(3000):
        lengths = [rng.randint(2, 12) for _ in range(4)]
        means = [rng.gauss(-2, 1) for _ in lengths]
        label = rng.choices(range(4), softmax([2 * mean for mean in means]))[0]
        given = tuple(mean * length for mean, length in zip(means, lengths, strict=True))
        cases.append(ScoredCase(given, None, tuple(lengths), label, str(number), False))

    found = fit(cases).plain

    assert (found.length_exponent, found.neutral_weight) == (1.0, None)
    assert found.temperature == pytest.approx(0.5, rel=0.15)


def test_scores_that_say_nothing_give_flat_shares() -> None:
    cases = drawn(600, temperature=1.0, weight=0.5, seed=2)
    rng = random.Random(3)
    lost = [dataclasses.replace(case, label=rng.randrange(len(case.logprobs))) for case in cases]

    found = fit(lost)

    shares = found.shares([0.0, -6.0], None, [3, 3])
    assert shares[0] < 0.6


def test_a_calibration_is_measured_where_it_was_not_fitted() -> None:
    cases = drawn(900, temperature=5.0, weight=1.0, seed=4)

    found = calibrate(cases, IDENTITY)

    assert (found.model, found.model_digest, found.quantization) == ("tiny", "0" * 64, "none")
    seen = {(part.asked, part.judged_by): part for part in found.measured}
    held_out = seen["corrected", "held-out"]
    assert held_out.after.cases == sum(case.held_out for case in cases)
    assert seen["corrected", "cross-validation"].after.cases == sum(not case.held_out for case in cases)
    for part in (held_out, seen["corrected", "cross-validation"]):
        # The scores were five times as sure as they should be.
        assert part.before.ece > 0.2
        assert part.after.ece < 0.1
        assert part.after.brier < part.before.brier
        assert part.after.log_loss < part.before.log_loss
    assert seen.keys() == {(a, b) for a in ("plain", "corrected") for b in ("cross-validation", "held-out")}


def test_quality_is_what_its_definitions_say() -> None:
    shares = [[0.95, 0.05], [0.91, 0.09], [0.4, 0.6], [0.2, 0.8]]

    found = quality(shares, [0, 1, 1, 0])

    assert (found.cases, found.accuracy) == (4, 0.5)
    # Two answers around 0.93 of which one is right, one at 0.6 that is right, one at 0.8 that is wrong.
    assert found.ece == pytest.approx((2 * abs(0.93 - 0.5) + 0.4 + 0.8) / 4)
    assert found.brier == pytest.approx(2 * (0.05**2 + 0.91**2 + 0.4**2 + 0.8**2) / 4)
    assert found.log_loss == pytest.approx(-math.log(0.95 * 0.09 * 0.6 * 0.2) / 4)
    assert [(part.low, part.cases) for part in found.bins] == [(0.6, 1), (0.8, 1), (0.9, 2)]


def test_a_calibration_is_found_again_beside_its_model(tmp_path: Path) -> None:
    made = calibrate(drawn(200, 2.0, 1.0, 6), IDENTITY)

    path = write_calibration(tmp_path / "model", made)

    assert path == calibration_path(tmp_path / "model", "none")
    assert read_calibration(tmp_path / "model", IDENTITY) == made
    assert [left.name for left in path.parent.iterdir()] == [path.name]
    assert read_calibration(tmp_path / "model", dataclasses.replace(IDENTITY, quantization="int8")) == (
        Calibration()
    )
    assert read_calibration(tmp_path / "nowhere", IDENTITY) == Calibration()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "Invalid JSON"),
        ('{"format": 2, "new": true}', "has version 2, this one reads 1"),
        ('{"format": 1, "plain": {"temperature": 0}}', "plain.temperature"),
        ('{"format": 1, "surprise": 1}', "surprise"),
        ('{"format": 1, "model_digest": "ff", "quantization": "none"}', "is for weights 'ff'"),
    ],
)
def test_a_calibration_that_cannot_be_trusted_is_refused(tmp_path: Path, content: str, said: str) -> None:
    calibration_path(tmp_path, "none").write_text(content)

    with pytest.raises(CalibrationError, match=re.escape(said)) as refused:
        read_calibration(tmp_path, IDENTITY)
    assert str(calibration_path(tmp_path, "none")) in str(refused.value)
    assert "watchkeeper models calibrate tiny" in str(refused.value)


def test_no_text_is_both_fitted_and_held_out() -> None:
    def texts(cases: list[LabelledCase]) -> set[str]:
        lines = {line for case in cases for line in case.question.splitlines()}
        told = {case.system for case in cases} | {case.lead for case in cases}
        options = {option for case in cases for option in case.options}
        # Names of hosts are drawn, and say nothing.
        return {
            re.sub(r"\b(ares|bora|cedar|delta|ember|fjord|gale|heron)\b", "X", text)
            for text in lines | told | options | {case.answer for case in cases}
        }

    cases = built_in_cases()
    held_out = [case for case in cases if case.held_out]
    fitted = [case for case in cases if not case.held_out]

    assert texts(held_out) & texts(fitted) == set()
    assert {case.topic for case in held_out} == {case.topic for case in fitted}
    assert (len(fitted), len(held_out)) == (4 * len(FAULTS), 2 * len(FAULTS))


def test_the_cases_are_the_same_for_a_seed_and_none_gives_its_answer_away() -> None:
    cases = built_in_cases(7)

    assert digest_of(cases) == digest_of(built_in_cases(7)) != digest_of(built_in_cases(8))
    places = [case.label / (len(case.options) - 1) for case in cases]
    assert 0.4 < sum(places) / len(places) < 0.6
    for case in cases:
        assert case.neutral is not None
        assert 4 <= len(set(case.options)) == len(case.options) <= 6
        seen = next(line for line in case.question.splitlines() if line.startswith("- "))
        assert "- none" in case.neutral
        assert seen not in case.neutral
        assert not any(option in case.question for option in case.options)
    told = " ".join(case.question for case in cases)
    assert "{" not in told.replace("avc: denied { name_connect }", "")


def test_the_cases_are_not_what_agents_are_asked() -> None:
    theirs = {cause.text.replace("{subject}", "").strip() for cause in BUILTIN_CAUSES}
    ours = {text for fault in FAULTS for text in (*fault.causes, *fault.looks)}
    assert not theirs & ours
    told = {line for fault in FAULTS for signs in fault.signs for line in signs}
    assert len(told) == sum(len(signs) for fault in FAULTS for signs in fault.signs)
    assert len({fault.area for fault in FAULTS}) == len(AREAS)


def line(**fields: object) -> str:
    return json.dumps({"question": "?", "options": ["a", "b"], "answer": "a", **fields})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (line(answer="c"), "line 2: answer 'c' is none of the options"),
        (line(options=["a"]), "line 2: options"),
        (line(options=["a", "a"]), "line 2: options must be distinct"),
        (line(options=["a", " "]), "line 2: options must be distinct and not blank"),
        (line(question=""), "line 2: question"),
        (line(extra=1), "line 2: extra"),
        ("{", "line 2: case"),
    ],
)
def test_a_line_that_is_no_case_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(line() + "\n" + text + "\n")

    with pytest.raises(CalibrationError, match=said):
        read_cases(path)


def test_of_own_cases_every_third_topic_is_held_out_unless_they_say(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text("\n\n".join(line(topic=topic) for topic in "aabbccd"))
    assert [case.held_out for case in read_cases(path)] == [False] * 4 + [True] * 2 + [False]
    path.write_text("\n".join([line(), line(held_out=True), line()]))
    assert [case.held_out for case in read_cases(path)] == [False, True, False]
    with pytest.raises(CalibrationError, match=r"none\.jsonl cannot be read"):
        read_cases(tmp_path / "none.jsonl")


def test_a_model_is_asked_each_case_with_and_without_its_evidence() -> None:
    cases = built_in_cases()[:3]

    def sure_with_evidence(request: ChoiceRequest) -> list[float]:
        count = len(request.options)
        if "- none" in request.messages[-1].content:
            return [1 / count] * count
        return [0.0, *[1 / (count - 1)] * (count - 1)]

    reported: list[tuple[str, int, int]] = []
    scored = score_cases(
        ScriptedEngine(choose=sure_with_evidence), cases, progress=lambda *seen: reported.append(seen)
    )

    assert [case.label for case in scored] == [case.label for case in cases]
    for case in scored:
        assert case.logprobs[0] < -1000
        assert case.neutral == pytest.approx([-math.log(len(case.logprobs))] * len(case.logprobs))
    assert reported[-1] == ("calibrate", 3, 3)


def test_an_engine_that_does_not_tell_its_scores_cannot_be_calibrated() -> None:
    class Silent(ScriptedEngine):
        def choose(self, request: ChoiceRequest, *, cancel: object = None) -> Choice:
            flat = tuple(ScoredOption(option, 0.0, 1 / len(request.options)) for option in request.options)
            return Choice(flat, Usage(), "unknown")

    with pytest.raises(CalibrationError, match="does not tell the log-probability"):
        score_cases(Silent(), built_in_cases()[:1])


@pytest.mark.parametrize(("count", "topics"), [(20, 60), (200, 1)])
def test_too_few_cases_are_refused(count: int, topics: int) -> None:
    cases = [
        dataclasses.replace(case, topic="one") if topics == 1 and not case.held_out else case
        for case in drawn(count, 2.0, 1.0, 8)
    ]
    with pytest.raises(CalibrationError, match=r"too few|all cases to fit are of topic"):
        calibrate(cases, IDENTITY)


def test_a_reliability_plot_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "plots" / "reliability.png"

    draw_reliability(calibrate(drawn(300, 3.0, 1.0, 9), IDENTITY), path)

    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    # Two questions beside each other.
    assert width > 1.5 * height
    assert len(content) > 10_000


def test_what_was_found_is_shown_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    found = calibrate(drawn(300, 3.0, 1.0, 9), IDENTITY)

    show(found)

    shown = " ".join(capsys.readouterr().out.split())
    last = found.measured[-1]
    assert f"neutral held-out 100 {last.before.accuracy:.3f} > {last.after.accuracy:.3f}" in shown
    assert f"neutral: temperature {found.corrected.temperature:.2f}" in shown


def test_an_interval_holds_its_share_and_narrows_with_more_cases() -> None:
    low, high = interval(0.8, 10)
    # Wilson's interval of 8 in 10.
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-3)
    assert interval(1.0, 5)[1] == 1.0
    assert interval(0.8, 1000)[1] - interval(0.8, 1000)[0] < high - low


def test_a_choice_names_the_calibration_that_made_its_shares() -> None:
    found = Calibration(model="tiny", plain=Scale(temperature=2.0))
    plain, calibrated = (LocalEngine(tiny.hosted(), EngineOptions(calibration=c)) for c in (None, found))
    question = ChoiceRequest((user("What now?"),), "The cause is", ("a full disk", "a bad disk"))

    first, second = plain.choose(question), calibrated.choose(question)

    assert (first.calibration, second.calibration) == ("", found.digest)
    assert len(found.digest) == 64
    assert first.options[0].probability != second.options[0].probability
    plain.close()
    calibrated.close()


def test_what_agents_showed_before_is_of_the_weight_that_they_asked_with() -> None:
    """Logprobs (-4, -5), neutral (-1, -4): 0.88 for the second option at weight 1, and 0.62 at a half."""
    asked = [
        ScoredCase((-4.0, -5.0), (-1.0, -4.0), (3, 3), 1, f"topic {n}", n % 3 == 2, neutral_weight=0.5)
        for n in range(60)
    ]
    (before,) = {
        round(bin_.confidence, 2)
        for found in calibrate(asked, IDENTITY).measured
        if found.asked == "corrected"
        for bin_ in found.before.bins
        if bin_.cases
    }
    assert before == 0.62
