"""Judge a classifier of texts: its scores, whether it treats groups alike, and what answers rest on.

    watchkeeper jobs submit --trainer text-classifier --data feedback.csv --set "groups=[language]"
    watchkeeper jobs work --once
    python examples/judge_texts.py ~/.local/share/watchkeeper/training/JOB-7K3QWX/artefacts later.csv

`feedback.csv` and `later.csv` have the columns `text` and `label`, and those of the groups. How far groups
may be apart is for you to say; a verdict says "undecided" where there are too few rows to know. ``--plots
FOLDER`` leaves a confusion matrix and a plot of reliability there. ``--gradients`` explains answers of a
transformer by integrated gradients (extra ``explain``), which tell words either of which suffices.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from watchkeeper.tools.errors import DataError, ToolError
from watchkeeper.tools.predictors import read_manifest
from watchkeeper.tools.predictors.bias import BiasPolicy, bias_test
from watchkeeper.tools.predictors.explain import Piece, explain_text
from watchkeeper.tools.predictors.plots import draw_confusion, draw_reliability
from watchkeeper.tools.predictors.text import TextPredictor
from watchkeeper.tools.training.examples import read_examples
from watchkeeper.tools.training.scores import evaluation_of
from watchkeeper.tools.training.text_classifier import TextClassifier

EXPLAINED = 3


def main(arguments: list[str] | None = None) -> int:
    """Judge the predictor that is named, and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("predictor", type=Path, help="its folder")
    parser.add_argument("data", type=Path, help="rows that it did not learn from")
    parser.add_argument("--apart", type=float, default=0.1, help="how far rates of groups may be apart")
    parser.add_argument("--plots", type=Path, help="folder for plots")
    parser.add_argument("--gradients", action="store_true", help="explain a transformer by gradients")
    given = parser.parse_args(arguments)
    try:
        judge(given.predictor, given.data, given.apart, given.plots, gradients=given.gradients)
    except ToolError as error:
        print(f"error: {error}")
        return 2
    return 0


def judge(folder: Path, data: Path, apart: float, plots: Path | None, *, gradients: bool) -> None:
    """Score, test for bias, explain, and draw."""
    trainer = TextClassifier()
    parameters = trainer.parse_parameters(read_manifest(folder).parameters)
    answers = trainer.answers(folder, data, parameters)
    for name, value in evaluation_of(answers, positive=parameters.positive).metrics.items():
        print(f"{name:30} {value:.3f}")
    truth = [answers.classes[number] for number in answers.truth]
    given = [answers.classes[number] for number in answers.predicted]
    policy = BiasPolicy(demographic_parity=apart, equalized_odds=apart)
    for report in bias_test(truth, given, answers.groups, policy):
        print(f"\n{report.column}: {report.verdict}")
        for found in report.disparities:
            one, other = found.between
            more = f", too few rows of {', '.join(found.short)}" if found.short else ""
            print(
                f"  {found.rate} of {found.label}: {one} and {other} are {found.low:.2f} to {found.high:.2f} "
                f"apart: {found.verdict}{more}"
            )
    predictor = TextPredictor.load(folder)
    wrong = [number for number in range(len(truth)) if truth[number] != given[number]]
    examples = read_examples(data, parameters.columns).all
    for number in (wrong or range(len(truth)))[:EXPLAINED]:
        text = examples[number].text
        why = explain_text(predictor, {parameters.text: text}, column=parameters.text)
        found = by_gradients(predictor, text, why.label) if gradients else why.pieces
        pieces = ", ".join(f"{piece.text} {piece.effect:+.2f}" for piece in found[:4])
        print(f"\n{examples[number].place}: {why.label} ({why.score:.2f}), true is {truth[number]}: {pieces}")
    if plots is not None:
        draw_confusion(answers.confusion(), answers.classes, plots / "confusion.png", title=data.name)
        draw_reliability(answers.reliability(), plots / "reliability.png", title=data.name)


def by_gradients(predictor: TextPredictor, text: str, label: str) -> tuple[Piece, ...]:
    """Return what each token of a text is worth to the score of a label, the strongest first."""
    from watchkeeper.tools.predictors.gradients import token_gradients
    from watchkeeper.tools.predictors.transformer import TransformerEncoder

    if not isinstance(predictor.encoder, TransformerEncoder):
        raise DataError("only a transformer has gradients: train one with the parameter model")
    pieces = token_gradients(predictor.encoder, text, predictor.classes.index(label)).pieces
    return tuple(sorted(pieces, key=lambda piece: -abs(piece.effect)))


if __name__ == "__main__":
    raise SystemExit(main())
