"""People say whether decisions were right; what they say is added, audited, counted and exported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.lamp import ALERT, folder_in_memory
from watchkeeper.cli import decisions as command
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.decisions import DecisionRecord
from watchkeeper.runtime.errors import AuditError, ReviewError
from watchkeeper.runtime.events import Option
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.reviews import Reviews, ReviewVerdict

RIGHT, WRONG, UNSURE = ReviewVerdict.RIGHT, ReviewVerdict.WRONG, ReviewVerdict.UNSURE


@pytest.fixture
def journal() -> Iterator[Journal]:
    with folder_in_memory() as folder, Journal(folder) as journal:
        incident = journal.open(ALERT).id
        for role, shares in (
            ("planner", (0.9, 0.1)),
            ("planner", (0.6, 0.3, 0.1)),
            ("triage", (0.5, 0.5)),
            ("triage", (1.0,)),
        ):
            journal.decisions.add(
                incident,
                DecisionRecord(
                    role=role,
                    question="which?",
                    options=tuple(Option(text=f"option {n}", probability=p) for n, p in enumerate(shares)),
                    chosen=0,
                    model="m",
                    quantization="int8",
                    prompt_digest="0",
                ),
            )
        yield journal


@pytest.fixture
def reviews(journal: Journal) -> Reviews:
    return Reviews(journal.store, journal.audit)


@pytest.fixture
def ids(journal: Journal) -> list[str]:
    return [record.id for record in journal.decisions.list(journal.incidents.list()[0].id)]


def test_a_review_is_kept_beside_the_decision_and_audited(
    reviews: Reviews, journal: Journal, ids: list[str]
) -> None:
    before = journal.decisions.get(ids[1])
    first = reviews.add(ids[1], WRONG, by="ann", should_be=2, note="the fuse")
    second = reviews.add(ids[1], RIGHT, by="bob")
    assert reviews.list(ids[1]) == (first, second)
    assert journal.decisions.get(ids[1]) == before
    entries = [entry for entry in journal.audit.entries() if entry.kind == "decision-reviewed"]
    assert [entry.data["by"] for entry in entries] == ["ann", "bob"]  # type: ignore[index,call-overload]


@pytest.mark.parametrize(
    ("verdict", "should_be", "said"),
    [
        (RIGHT, 1, "no other option goes with it"),
        (WRONG, 7, "options 1 to 3, not 8"),
        (WRONG, 0, "is the one that was chosen"),
    ],
)
def test_a_review_that_does_not_fit_is_refused(
    reviews: Reviews, ids: list[str], verdict: ReviewVerdict, should_be: int, said: str
) -> None:
    with pytest.raises(ReviewError, match=said):
        reviews.add(ids[1], verdict, by="ann", should_be=should_be)
    assert reviews.list(ids[1]) == ()


def test_what_cannot_be_audited_is_not_kept(reviews: Reviews, journal: Journal, ids: list[str]) -> None:
    journal.audit.keys.joinpath("audit.key").chmod(0o644)
    with pytest.raises(AuditError):
        reviews.add(ids[0], RIGHT, by="ann")
    assert reviews.list(ids[0]) == ()


def test_accuracy_is_counted_by_role_from_the_last_review_of_each(reviews: Reviews, ids: list[str]) -> None:
    reviews.add(ids[0], WRONG, by="ann")
    reviews.add(ids[0], RIGHT, by="bob")
    reviews.add(ids[1], WRONG, by="ann", should_be=1)
    reviews.add(ids[2], UNSURE, by="ann")
    planner, triage = reviews.summary()
    assert (planner.role, planner.decisions, planner.right, planner.wrong) == ("planner", 2, 1, 1)
    assert planner.accuracy == 0.5
    assert planner.stated == pytest.approx(0.75)
    assert (triage.decisions, triage.unsure, triage.accuracy) == (1, 1, None)
    assert reviews.unreviewed() == ()


def test_only_questions_with_a_choice_wait_for_a_review(reviews: Reviews, ids: list[str]) -> None:
    assert [record.id for record in reviews.unreviewed()] == [ids[2], ids[1], ids[0]]
    assert len(reviews.unreviewed(limit=1)) == 1


def test_what_was_reviewed_is_exported_whole(reviews: Reviews, ids: list[str], tmp_path: Path) -> None:
    reviews.add(ids[1], WRONG, by="ann", should_be=2)
    file = tmp_path / "out.jsonl"
    assert reviews.export(file, reviewed=True) == 1
    line = json.loads(file.read_text())
    assert (line["decision"]["id"], line["review"]["should_be"]) == (ids[1], 2)
    with pytest.raises(ReviewError, match="cannot be written"):
        reviews.export(file, reviewed=True)
    assert reviews.export(tmp_path / "all.jsonl", reviewed=False) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.jsonl", "out.jsonl"]


def test_the_commands(
    journal: Journal, reviews: Reviews, ids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(journal.home))

    def run(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(command.app, arguments, catch_exceptions=False)
        return result.exit_code, result.stdout, result.stderr

    assert [line.split()[0] for line in run("review")[1].splitlines()] == ["ID", ids[2], ids[1], ids[0]]
    assert run("review", ids[1].lower(), "--verdict", "wrong", "--should-be", "3", "--note", "x")[0] == 0
    assert reviews.list(ids[1])[0].should_be == 2
    assert "'maybe' is none" in run("review", ids[1], "--verdict", "maybe")[2]
    assert "needs a decision" in run("review", ids[1].partition("-D")[0], "--verdict", "right")[2]
    assert "needs a decision" in run("review", "INC-D7K3", "--verdict", "right")[2]
    assert "options 1 to 2, not 9" in run("review", ids[0], "--verdict", "wrong", "--should-be", "9")[2]
    assert json.loads(run("review", "--json")[1])[0]["id"] == ids[2]
    assert json.loads(run("summary", "--json")[1])[0]["accuracy"] == 0.0
    assert "planner" in run("summary")[1]
    assert run("export", "--reviewed", str(tmp_path / "x.jsonl"))[1].endswith("1 decisions\n")


def test_one_is_asked_about_one_decision_after_the_other(
    journal: Journal, reviews: Reviews, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter(["x", "w", "1", "2", "because", "s", "q"])
    monkeypatch.setattr(command.typer, "prompt", lambda *_, **__: next(said))
    command._review_each(reviews.unreviewed(), reviews, Console(quiet=True), by="ann")
    (review,) = reviews.list(ids[2])
    assert (review.verdict, review.should_be, review.note) == (WRONG, 1, "because")
    assert reviews.list(ids[1]) == reviews.list(ids[0]) == ()
    assert isinstance(journal.audit, AuditLog)
