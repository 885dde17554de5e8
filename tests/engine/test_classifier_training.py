"""Classifiers of texts and log lines: they learn, the same by the same seed, and breaks leave no trace."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertForSequenceClassification

from tests import tiny
from tests.training import Run, files_of
from watchkeeper.tools.errors import ArtefactError, DataError, JobCancelledError
from watchkeeper.tools.predictors import open_predictor, read_manifest
from watchkeeper.tools.predictors.logs import LogPredictor
from watchkeeper.tools.training import Trainer, trainer_of
from watchkeeper.tools.versions.compare import Verdict, compare_on

# Praise and complaint in several languages; each text takes some words of its kind and some of no kind.
PRAISE = [
    "great",
    "super",
    "bien",
    "wunderbar",
    "отлично",
    "太好了",
    "excelente",
    "perfekt",
    "love",
    "schnell",
]
BLAME = ["broken", "kaputt", "mauvais", "langsam", "плохо", "太差了", "horrible", "defekt", "hate", "crash"]
PLAIN = [
    "the",
    "app",
    "das",
    "cuenta",
    "приложение",
    "应用",
    "today",
    "heute",
    "with",
    "und",
    "la",
    "page",
    "screen",
    "menu",
]


def feedback(path: Path, count: int, seed: int) -> Path:
    chance = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "label", "team"])
        for number in range(count):
            words = [*chance.sample((PRAISE, BLAME)[number % 2], 2), *chance.sample(PLAIN, 4)]
            chance.shuffle(words)
            writer.writerow([" ".join(words), ("good", "bad")[number % 2], "xyz"[number % 3]])
    return path


def events(path: Path, count: int, seed: int, *, start: int = 1_900_000_000, odd: str = "") -> Path:
    chance = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["time", "message", "label"])
        for number in range(count):
            disk, size = chance.randrange(90), chance.randrange(10_000)
            said, label = chance.choice(
                [
                    (f"block {size} of disk {disk} written in {size / 7:.1f} ms", "-"),
                    (f"session {size} opened for 10.0.0.{disk}", "-"),
                    (f"disk {disk} reports an unreadable sector at 0x{size:08x}", "DISK"),
                    (f"link to 10.0.0.{disk}:{size} severed by peer", "NET"),
                    *([(f"{odd} {size}", "-")] if odd else []),
                ]
            )
            writer.writerow([start + number, said, label])
    return path


def trained(
    name: str, data: Path, folder: Path, parameters: dict[str, Any], **options: Any
) -> tuple[Trainer[Any], Any, Run]:
    trainer = trainer_of(name)
    parsed = trainer.parse_parameters(parameters)
    run = Run(data, folder, **options)
    trainer.train(run, parsed)
    return trainer, parsed, run


CASES: dict[str, tuple[Callable[..., Path], dict[str, Any]]] = {
    "text-classifier": (feedback, {"epochs": 6, "groups": ("team",), "buckets": 4096, "width": 8}),
    "log-classifier": (events, {"epochs": 6, "time": "time", "buckets": 4096, "width": 8}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_break_leaves_no_trace_and_another_seed_does(name: str, tmp_path: Path) -> None:
    make, parameters = CASES[name]
    data = make(tmp_path / "data.csv", 150, 1)
    trainer, parsed, whole = trained(name, data, tmp_path / "whole", parameters, seed=4)
    for checkpoints in (1, 5):
        cut = Run(data, tmp_path / f"cut{checkpoints}", seed=4, cut_after=checkpoints)
        with pytest.raises(JobCancelledError):
            trainer.train(cut, parsed)
        assert not (cut.artefacts / "predictor.json").exists()
        again = Run(data, tmp_path / f"again{checkpoints}", seed=4, before=cut)
        trainer.train(again, parsed)
        assert files_of(again.artefacts) == files_of(whole.artefacts)
        assert again.metrics == whole.metrics
        assert again.told[1] > 0
    _, _, other = trained(name, data, tmp_path / "other", parameters, seed=5)
    assert files_of(other.artefacts) != files_of(whole.artefacts)
    assert whole.told == sorted(whole.told)
    assert whole.told[-1] == 1
    assert whole.checks >= len(whole.metrics)


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_of_other_data_or_parameters_is_refused(name: str, tmp_path: Path) -> None:
    make, parameters = CASES[name]
    data = make(tmp_path / "data.csv", 80, 1)
    trainer = trainer_of(name)
    cut = Run(data, tmp_path / "cut", cut_after=1)
    with pytest.raises(JobCancelledError):
        trainer.train(cut, trainer.parse_parameters(parameters))
    for number, (other, changed) in enumerate(
        ((make(tmp_path / "other.csv", 81, 1), parameters), (data, {**parameters, "epochs": 7}))
    ):
        again = Run(other, tmp_path / f"again{number}", before=cut)
        with pytest.raises(DataError, match="was made from other data or parameters: begin a new run"):
            trainer.train(again, trainer.parse_parameters(changed))


def test_texts_of_many_languages_are_told_apart_and_scored_by_group(tmp_path: Path) -> None:
    data, fresh = feedback(tmp_path / "a.csv", 300, 1), feedback(tmp_path / "b.csv", 120, 2)
    trainer, parsed, run = trained("text-classifier", data, tmp_path / "run", {"groups": ("team",)})
    found = trainer.evaluate(run.artefacts, fresh, parsed)
    assert found.metrics["f1"] > 0.95
    assert found.metrics["ece"] < 0.1
    assert sum(group["rows"] for group in found.groups["team"].values()) == found.rows == 120
    manifest = read_manifest(run.artefacts)
    assert (manifest.kind, manifest.groups, manifest.rows) == ("text", ("team",), 300)
    predictor = open_predictor(run.artefacts)
    (praise,) = predictor.predict([{"text": "太好了"}])
    assert praise["label"] == "good"
    assert isinstance(praise["probabilities"], dict)
    assert sum(float(str(p)) for p in praise["probabilities"].values()) == pytest.approx(1)


def test_an_answer_does_not_depend_on_what_else_is_asked(tmp_path: Path) -> None:
    data = feedback(tmp_path / "a.csv", 60, 1)
    _, _, run = trained("text-classifier", data, tmp_path / "run", {"epochs": 2})
    predictor = open_predictor(run.artefacts)
    rows = [{"text": f"{PRAISE[i % 10]} {PLAIN[i % 14]} {i}"} for i in range(30)]
    assert [predictor.predict([row])[0] for row in rows] == predictor.predict(rows)
    with pytest.raises(DataError, match="row 2: column 'text' is missing"):
        predictor.predict([{"text": "x"}, {"comment": "y"}])
    with pytest.raises(DataError, match="row 1: column 'text' is 7, which is no text"):
        predictor.predict([{"text": 7}])


def test_a_predictor_reads_the_columns_that_it_was_trained_with(tmp_path: Path) -> None:
    data = tmp_path / "a.csv"
    data.write_text(feedback(tmp_path / "b.csv", 40, 1).read_text().replace("text,label", "comment,grade"))
    parameters = {"text": "comment", "label": "grade", "epochs": 1}
    _, _, run = trained("text-classifier", data, tmp_path / "run", parameters)
    predictor = open_predictor(run.artefacts)
    assert dict(predictor.columns) == {"comment": "the text"}
    assert predictor.predict([{"comment": "great"}])[0]["label"] in ("good", "bad")
    with pytest.raises(DataError, match="row 1: column 'comment' is missing"):
        predictor.predict([{"text": "great"}])


def test_no_word_that_was_learned_from_is_kept(tmp_path: Path) -> None:
    data = feedback(tmp_path / "a.csv", 60, 1)
    _, _, run = trained("text-classifier", data, tmp_path / "run", {"epochs": 1})
    kept = b"".join(path.read_bytes() for path in run.artefacts.iterdir())
    assert not [word for word in (*PRAISE, *BLAME) if word.encode() in kept]


def test_log_lines_are_told_apart(tmp_path: Path) -> None:
    data = events(tmp_path / "a.csv", 300, 1)
    later = events(tmp_path / "b.csv", 200, 2, start=1_900_001_000)
    trainer, parsed, run = trained("log-classifier", data, tmp_path / "run", {"time": "time"})
    assert trainer.evaluate(run.artefacts, later, parsed).metrics["f1"] > 0.95
    (answer,) = open_predictor(run.artefacts).predict([{"message": "link to 10.9.9.9:1 severed by peer"}])
    assert answer["label"] == "NET"
    assert answer["template"] == "link to <ip> severed by peer"


def test_lines_of_trouble_can_be_one_class(tmp_path: Path) -> None:
    data = events(tmp_path / "a.csv", 120, 1)
    later = events(tmp_path / "b.csv", 60, 2, start=1_900_001_000)
    trainer, parsed, run = trained("log-classifier", data, tmp_path / "run", {"normal": "-", "time": "time"})
    found = trainer.evaluate(run.artefacts, later, parsed)
    assert found.metrics["f1"] == found.metrics["f1 of abnormal"] > 0.95


def test_templates_and_weights_know_nothing_of_lines_that_come_later(tmp_path: Path) -> None:
    data = events(tmp_path / "a.csv", 120, 1)
    later = events(tmp_path / "b.csv", 60, 2, start=1_900_001_000, odd="ballast pump primed")
    trainer, parsed, run = trained("log-classifier", data, tmp_path / "run", {"time": "time", "epochs": 2})
    before = files_of(run.artefacts)
    trainer.evaluate(run.artefacts, later, parsed)
    assert files_of(run.artefacts) == before
    predictor = open_predictor(run.artefacts)
    assert isinstance(predictor, LogPredictor)
    known = predictor.description.templates["templates"]
    # The newest tenth, on which probabilities are calibrated, taught no template either.
    assert sum(template["count"] for template in known) == 108
    assert not [template for template in known if "ballast" in template["words"]]
    (answer,) = predictor.predict([{"message": "ballast pump primed 7"}])
    assert answer["template"] is None


def test_the_past_the_training_data_and_unknown_labels_are_refused_for_scoring(tmp_path: Path) -> None:
    data = events(tmp_path / "a.csv", 80, 1)
    trainer, parsed, run = trained("log-classifier", data, tmp_path / "run", {"time": "time", "epochs": 1})
    with pytest.raises(DataError, match="is what the predictor learned from: score it on other lines"):
        trainer.evaluate(run.artefacts, data, parsed)
    past = events(tmp_path / "past.csv", 30, 2, start=1_900_000_060)
    with pytest.raises(DataError, match=r"past\.csv, line 2: was written at 1900000060, before the newest"):
        trainer.evaluate(run.artefacts, past, parsed)
    strange = tmp_path / "strange.csv"
    strange.write_text("time,message,label\n1900009000,up,CPU\n")
    with pytest.raises(DataError, match="line 2: label 'CPU' was not learned"):
        trainer.evaluate(run.artefacts, strange, parsed)


@pytest.mark.parametrize(
    ("name", "make", "column"),
    [("text-classifier", feedback, "text"), ("log-classifier", events, "message")],
)
def test_a_new_class_is_held_against_a_champion_that_never_learned_it(
    name: str, make: Callable[..., Path], column: str, tmp_path: Path
) -> None:
    def with_new_class(path: Path, seed: int) -> Path:
        with make(path, 120, seed).open(newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
        new = [
            {**row, column: f"{number} rotors stand still in {number}", "label": "FAN"}
            for number, row in enumerate(rows)
        ]
        with path.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.DictWriter(opened, [*rows[0]])
            writer.writeheader()
            writer.writerows([*rows, *new[:40]])
        return path

    _, _, old = trained(name, make(tmp_path / "old.csv", 120, 1), tmp_path / "old", {})
    data, held_out = with_new_class(tmp_path / "a.csv", 2), with_new_class(tmp_path / "b.csv", 3)
    trainer, parsed, new = trained(name, data, tmp_path / "new", {})
    found = compare_on(held_out, old.artefacts, new.artefacts)
    assert found.verdict is Verdict.BETTER
    assert found.unlearned == {"FAN": 40}
    assert found.champion["recall of FAN"] == 0.0
    assert found.reason.endswith("the champion got 40 examples wrong whose labels it never learned")
    with pytest.raises(DataError, match="label 'FAN' was not learned"):
        trainer.evaluate(old.artefacts, held_out, parsed)
    with pytest.raises(DataError, match="label 'FAN' was not learned"):
        compare_on(held_out, new.artefacts, old.artefacts)


def test_damaged_and_foreign_predictors_are_refused(tmp_path: Path) -> None:
    data, later = events(tmp_path / "a.csv", 60, 1), events(tmp_path / "b.csv", 60, 2, start=1_900_001_000)
    trainer, parsed, run = trained("log-classifier", data, tmp_path / "run", {"epochs": 1})
    texts = trainer_of("text-classifier")
    with pytest.raises(ArtefactError, match="holds a predictor of kind 'log', not 'text'"):
        texts.evaluate(run.artefacts, later, texts.parse_parameters({"text": "message"}))
    weights = run.artefacts / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtefactError, match=r"model\.safetensors cannot be read"):
        trainer.evaluate(run.artefacts, later, parsed)
    weights.write_bytes(whole)
    description = json.loads((run.artefacts / "model.json").read_text())
    (run.artefacts / "model.json").write_text(json.dumps({**description, "classes": ["a", "b"]}))
    with pytest.raises(ArtefactError, match="the weights do not belong together, or not to 2 classes"):
        open_predictor(run.artefacts)
    (run.artefacts / "model.json").write_text(json.dumps({**description, "buckets": "many"}))
    with pytest.raises(ArtefactError, match=r"model\.json: buckets: "):
        open_predictor(run.artefacts)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny transformer with random weights, in a folder."""
    import torch

    folder = tmp_path_factory.mktemp("bert")
    tokenizer = tiny.tokenizer(None, tags=False)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_transformer_of_a_folder_is_fitted_and_goes_on_after_a_break(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from examples import judge_texts

    data, fresh = feedback(tmp_path / "a.csv", 60, 1), feedback(tmp_path / "b.csv", 30, 2)
    parameters = {"model": str(bert), "epochs": 2, "batch_size": 16, "max_tokens": 64, "learning_rate": 0.005}
    trainer, parsed, whole = trained("text-classifier", data, tmp_path / "whole", parameters)
    cut = Run(data, tmp_path / "cut", cut_after=2)
    with pytest.raises(JobCancelledError):
        trainer.train(cut, parsed)
    again = Run(data, tmp_path / "again", before=cut)
    trainer.train(again, parsed)
    assert files_of(again.artefacts) == files_of(whole.artefacts)
    assert again.metrics == whole.metrics
    found = trainer.evaluate(whole.artefacts, fresh, parsed)
    assert found.rows == 30
    predictor = open_predictor(whole.artefacts)
    rows = [{"text": "great 太好了"}, {"text": "kaputt " * 50}]
    assert [predictor.predict([row])[0] for row in rows] == predictor.predict(rows)
    explained = []
    for options in ([], ["--gradients"]):
        assert judge_texts.main([str(whole.artefacts), str(fresh), *options]) == 0
        explained.append(capsys.readouterr().out.partition(f"\n{fresh}, line ")[2])
    assert explained[0] != explained[1] != ""
    # A head for other classes is not replaced by a random one.
    described = whole.artefacts / "model.json"
    known = json.loads(described.read_text())
    described.write_text(json.dumps(known | {"classes": [*known["classes"], "another"]}))
    with pytest.raises(ArtefactError, match="classes, and the description names"):
        open_predictor(whole.artefacts)


def test_a_transformer_that_is_not_there_is_told(tmp_path: Path) -> None:
    data = feedback(tmp_path / "a.csv", 40, 1)
    (tmp_path / "empty").mkdir()
    for model, message in (
        (str(tmp_path / "empty"), "holds no config.json"),
        ("no-such-model", "no model 'no-such-model' in the catalog"),
    ):
        with pytest.raises(DataError, match=message):
            trained("text-classifier", data, tmp_path / f"run-{len(message)}", {"model": model})


def test_a_class_that_is_rare_counts_more_where_that_is_asked(tmp_path: Path) -> None:
    from watchkeeper.tools.training.bag import class_weights

    plain = class_weights([0] * 90 + [1] * 10, 2, 0.0)
    full = class_weights([0] * 90 + [1] * 10, 2, 1.0)
    assert plain.tolist() == [1, 1]
    assert float(full[1] / full[0]) == pytest.approx(9)
    assert float(full[0] * 90 + full[1] * 10) == pytest.approx(100)


def test_the_example_judges_a_predictor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from examples import judge_texts

    data, later = feedback(tmp_path / "a.csv", 120, 1), feedback(tmp_path / "b.csv", 60, 2)
    _, _, run = trained("text-classifier", data, tmp_path / "run", {"groups": ("team",), "epochs": 8})
    assert judge_texts.main([str(run.artefacts), str(later), "--plots", str(tmp_path / "plots")]) == 0
    said = capsys.readouterr().out
    assert "\nteam: undecided\n" in said
    assert f"{later}, line " in said
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"confusion.png", "reliability.png"}
    assert judge_texts.main([str(run.artefacts), str(later), "--gradients"]) == 2
    assert "only a transformer has gradients" in capsys.readouterr().out
    assert judge_texts.main([str(run.artefacts), str(data)]) == 2
    assert "is what the predictor learned from" in capsys.readouterr().out
