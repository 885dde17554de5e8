"""`watchkeeper models tune`: let the agents' own model learn from decisions, and keep what is better."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.output import INTERRUPTED, fail, print_json, progress_view, stderr_console
from watchkeeper.cli.records import mistakes, print_table

if TYPE_CHECKING:
    from pydantic import JsonValue

    from watchkeeper.models.calibration_cases import LabelledCase
    from watchkeeper.runtime.tuning import Tuning
    from watchkeeper.runtime.tuning_verdict import TuningVerdict

NOT_EARNED = 1
"""Exit code where an adapter was made and is no better."""


def tune(
    model_id: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Model to tune; the default one if left out.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="JSONL", help="Your own decisions; see 'watchkeeper decisions export --cases'."
        ),
    ] = None,
    examples: Annotated[
        int, typer.Option("--examples", min=0, help="Generated decisions to learn from.")
    ] = 1600,
    held_out: Annotated[
        int, typer.Option("--held-out", min=0, help="Generated decisions of other kinds that only judge.")
    ] = 200,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0.1, help="Train at most so long now; the same command goes on."),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", metavar="NAME", help="What the adapter is called.")
    ] = "site",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Processors to train on.")] = 2,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of what is generated and drawn.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Train an adapter with which the model finds root causes, judge it, and keep it if it is better."""
    import hashlib

    from watchkeeper.cli.identity import permitted_person
    from watchkeeper.models.calibration_cases import read_cases
    from watchkeeper.models.catalog import DEFAULT_MODEL, find_model
    from watchkeeper.models.home import home_folder
    from watchkeeper.models.store import find_installed
    from watchkeeper.runtime.audit import AuditLog
    from watchkeeper.runtime.roles import Permission
    from watchkeeper.runtime.tuning import Tuning
    from watchkeeper.runtime.tuning_verdict import TuningPlan

    # What can be wrong is found before minutes are spent.
    entry = find_model(model_id or DEFAULT_MODEL)
    with mistakes():
        person = permitted_person(home_folder(), Permission.PROMOTE, "tune the agents' model")
    find_installed(entry)
    own: tuple[LabelledCase, ...] = () if data is None else read_cases(data)
    plan = TuningPlan(
        model=entry.id,
        drills=examples,
        held_out=held_out,
        seed=seed,
        data_sha256="" if data is None else hashlib.sha256(data.read_bytes()).hexdigest(),
    )
    tuning = Tuning.open(home_folder(), output, plan, own)
    tuning.refuse_taken_name(entry)
    digest = ""
    with mistakes(), tuning.held():
        try:
            verdict = _tuned(tuning, threads, None if minutes is None else time.monotonic() + 60 * minutes)
        except KeyboardInterrupt:
            fail("stopped; the same command goes on where it was", INTERRUPTED)
        if verdict.earned:
            digest = tuning.digest
            told: dict[str, JsonValue] = {
                "by": person.name,
                "known_by": person.proof.value,
                "model": entry.id,
                "adapter": output,
                "sha256": digest,
                "plan": plan.model_dump(mode="json"),
                "reason": verdict.reason,
            }
            # What cannot be audited is not installed.
            AuditLog(home_folder()).append("adapter-tuned", told)
            tuning.install(entry, verdict)
    _tell(tuning, verdict, digest, as_json=as_json)


def _tuned(tuning: Tuning, threads: int, ends: float | None) -> TuningVerdict:
    from watchkeeper.models.engine import LocalEngine
    from watchkeeper.models.loading import load

    with progress_view(stderr_console()) as report:
        ending = tuning.train(
            threads=threads, wanted=lambda: ends is None or time.monotonic() < ends, progress=report
        )
        if ending.how == "stopped":
            step = tuning.job.progress.what or "the beginning"
            fail(f"the time is over at {step}; the same command goes on from there", INTERRUPTED)
        if ending.how != "done":
            fail(f"the training ended ({ending.how}): {ending.reason}; its log is {tuning.job.log}")
        engine = LocalEngine(load(tuning.plan.model, progress=report))
        try:
            return tuning.judge(engine, progress=report)
        finally:
            engine.close()


def _tell(tuning: Tuning, verdict: TuningVerdict, digest: str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "name": tuning.name,
                "installed": verdict.earned,
                "sha256": digest,
                "folder": str(tuning.job.artefacts),
                **verdict.model_dump(mode="json"),
            }
        )
    else:
        print_table(
            ("JUDGED ON", "QUESTIONS", "BEFORE", "AFTER", "DIFFERENCE", "95 % INTERVAL"),
            [
                (
                    name,
                    str(part.cases),
                    f"{part.before:.3f}",
                    f"{part.after:.3f}",
                    f"{part.difference:+.3f}",
                    f"{part.low:+.3f} to {part.high:+.3f}",
                )
                for name, part in (
                    ("held-out decisions", verdict.choices),
                    ("generated tool calls", verdict.calls),
                )
            ],
            empty="",
        )
        said = "installed" if verdict.earned else "not installed"
        typer.echo(f"{said}: {verdict.reason}")
        if verdict.earned:
            typer.echo(f"agents use it with the setting 'adapter: {tuning.name}'", err=True)
        else:
            typer.echo(f"it is left in {tuning.job.artefacts}", err=True)
    if not verdict.earned:
        raise typer.Exit(NOT_EARNED)
