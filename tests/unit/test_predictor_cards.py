"""Cards of versions: everything that is known, and nothing that others wrote as markup."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.clocks import START
from tests.threshold import EVALUATION
from watchkeeper.tools.predictors import Manifest
from watchkeeper.tools.training.interface import Evaluation
from watchkeeper.tools.versions import JobRecord, Notes, Version, VersionRecord
from watchkeeper.tools.versions.cards import card_of, limits_of, write_card
from watchkeeper.tools.versions.documents import as_html, as_markdown

MANIFEST = Manifest(
    kind="k", trainer="t", created_at=START, parameters={"depth": 3}, data_sha256="d" * 64, rows=120
)
HOSTILE = "<script>alert(1)</script> [click](javascript:x) ![p](http://x/y) `|` *b* \u202e &amp; \"'"


def version(folder: Path, *, evaluation: Evaluation | None = EVALUATION, **more: object) -> Version:
    record = VersionRecord(
        name="busy",
        digest="e" * 64,
        files={"predictor.json": "0", "plots/roc curve.png": "1"},
        manifest=MANIFEST,
        evaluation=evaluation,
        registered_at=START,
        **more,  # type: ignore[arg-type]
    )
    return Version(number=3, folder=folder, record=record)


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_card_tells_data_quality_by_group_with_counts_energy_and_lineage(tmp_path: Path) -> None:
    job = JobRecord(id="JOB-7", hardware={"cores": "2"}, energy_joules=7200, energy_source="estimated")
    text = as_markdown(card_of(version(tmp_path, job=job)))
    assert "| SHA-256 | " + "d" * 64 in text
    assert "| accuracy | 0.75 |" in text
    assert "| team | examples | accuracy |" in text
    assert "| data | 10 | 0.6 |" in text
    assert "7200 J, 2 Wh (estimated)" in text
    assert "| job | JOB-7 |" in text
    assert "| parameter depth | 3 |" in text


def test_limits_are_what_the_figures_show(tmp_path: Path) -> None:
    notes = Notes(limits=("Not for nights.",))
    assert list(limits_of(version(tmp_path, notes=notes).record)) == [
        "Not for nights.",
        "It was scored on 20 examples only: its figures say little.",
        "By team: fewer than 30 examples were scored of data (10), web (10).",
        "By team: accuracy is lowest for data, 0.6 against 0.75 overall.",
        "Data that differ from those that it learned from make it worse; watch for drift.",
    ]


def test_what_was_not_evaluated_says_so(tmp_path: Path) -> None:
    record = version(tmp_path, evaluation=None).record
    assert list(limits_of(record)) == ["It was not evaluated: nothing is known of how good it is."]
    assert "It was not evaluated" in as_html(card_of(version(tmp_path, evaluation=None)))


def test_plots_are_linked_from_where_the_card_is(tmp_path: Path) -> None:
    folder = tmp_path / ("e" * 64)
    (folder / "plots").mkdir(parents=True)
    (folder / "plots" / "roc curve.png").write_bytes(b"png")
    markdown, page = write_card(version(folder, notes=Notes(plots={"plots/roc curve.png": "ROC"})))
    assert f"![ROC](../{'e' * 64}/plots/roc%20curve.png)" in markdown.read_text()
    assert f'src="../{"e" * 64}/plots/roc%20curve.png"' in page.read_text()
    assert (page.parent / f"../{'e' * 64}/plots/roc curve.png").is_file()


@pytest.mark.parametrize("where", ["purpose", "explanations"])
def test_what_others_wrote_is_text_and_nothing_else(tmp_path: Path, where: str) -> None:
    hostile = version(tmp_path, notes=Notes.model_validate({where: HOSTILE}))
    clean = Tags(as_html(card_of(version(tmp_path, notes=Notes.model_validate({where: "x"})))))
    found = Tags(as_html(card_of(hostile)))
    assert (found.tags, found.attributes) == (clean.tags, clean.attributes)
    assert "script" not in found.tags
    assert "alert(1)" in found.text
    assert "\u202e" not in found.text
    markdown = as_markdown(card_of(hostile))
    assert "<script" not in markdown
    assert "[click](" not in markdown
    assert "![p](" not in markdown


def test_hostile_group_names_do_not_break_a_table(tmp_path: Path) -> None:
    evaluation = EVALUATION.model_copy(update={"groups": {"team|x": {HOSTILE: {"accuracy": 0.5}}}})
    text = as_markdown(card_of(version(tmp_path, evaluation=evaluation)))
    (header,) = [line for line in text.splitlines() if line.startswith("| team")]
    row = text.splitlines()[text.splitlines().index(header) + 2]
    assert header.replace("\\|", "").count("|") == row.replace("\\|", "").count("|") == 4
