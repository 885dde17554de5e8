"""``watchkeeper decisions``: why an agent chose what it chose."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.identity import AskToken, permitted_person
from watchkeeper.cli.output import fail
from watchkeeper.cli.records import (
    Json,
    mistakes,
    opened,
    plain,
    print_json,
    print_pairs,
    print_table,
    upper,
    when,
)

if TYPE_CHECKING:
    from rich.console import Console

    from watchkeeper.runtime.decisions import DecisionRecord
    from watchkeeper.runtime.reviews import Reviews

app = typer.Typer(
    no_args_is_help=True, help="Look at why agents chose what they chose, and say whether that was right."
)


@app.command("list")
def list_(
    incident_id: Annotated[
        str, typer.Argument(metavar="INCIDENT", callback=upper, help="For example INC-7K3Q.")
    ],
    as_json: Json = False,
) -> None:
    """List the decisions made for an incident."""
    with opened() as (_, store):
        from watchkeeper.runtime.decisions import Decisions
        from watchkeeper.runtime.incidents import Incidents

        Incidents(store).get(incident_id)
        found = Decisions(store).list(incident_id)
        if as_json:
            print_json(found)
            return
        print_table(
            ("ID", "ROLE", "FOLLOWED", "SHARE", "OPTIONS", "ANSWER"),
            [
                (
                    record.id,
                    record.role,
                    "yes" if record.accepted else "no",
                    f"{record.answer.probability:.2f}",
                    str(len(record.options)),
                    record.answer.text,
                )
                for record in found
            ],
            empty=f"no decisions for {incident_id}",
        )


@app.command()
def show(
    decision_id: Annotated[
        str, typer.Argument(metavar="DECISION", callback=upper, help="For example INC-7K3Q-D1.")
    ],
    as_json: Json = False,
) -> None:
    """Show a decision: options with probabilities, model, evidence, cost."""
    with opened() as (_, store):
        from watchkeeper.runtime.decisions import Decisions

        record = Decisions(store).get(decision_id)
        if as_json:
            print_json(record)
            return
        cost = (
            f"{record.prompt_tokens} tokens read ({record.cached_tokens} from cache), "
            f"{record.generated_tokens} written, {record.seconds:.1f} s"
        )
        print_pairs(
            [
                ("decision", record.id),
                ("time", f"{when(record.at)} UTC"),
                ("role", record.role),
                ("question", record.question),
                ("followed", "yes" if record.accepted else f"no (threshold {record.threshold:.2f})"),
                ("model", f"{record.model} ({record.quantization}) {record.model_digest[:16]}".strip()),
                ("adapter", record.adapter[:80] or "none"),
                ("shares", _shares(record)),
                ("prompt", f"SHA-256 {record.prompt_digest}"),
                ("evidence", ", ".join(record.evidence_ids)),
                ("cost", cost),
                ("note", record.note),
            ]
        )
        typer.echo("\nOptions")
        for index, option in enumerate(record.options):
            mark = ">" if index == record.chosen else " "
            typer.echo(f"{mark} {option.probability:.3f}  {plain(option.text)}")


@app.command()
def review(
    target: Annotated[
        str | None,
        typer.Argument(metavar="[INCIDENT|DECISION]", callback=upper, help="For example INC-7K3Q-D1."),
    ] = None,
    verdict: Annotated[str | None, typer.Option(help="right, wrong or unsure; needs a DECISION.")] = None,
    should_be: Annotated[
        int | None,
        typer.Option(min=1, help="With wrong: the number of the option that would have been right."),
    ] = None,
    note: Annotated[str, typer.Option(help="Why.")] = "",
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Say whether decisions were right: one by one on a terminal, or one with --verdict."""
    with opened() as (settings, store):
        from watchkeeper.cli.output import stdout_console
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.decisions import Decisions
        from watchkeeper.runtime.incidents import Incidents
        from watchkeeper.runtime.reviews import Reviews, ReviewVerdict
        from watchkeeper.runtime.roles import Permission

        reviews = Reviews(store, AuditLog(settings.home))
        needed = Permission.REVIEW, "review decisions"
        one = target if target and re.search(r"-D\d+$", target) else None
        if verdict is not None:
            if one is None:
                fail("--verdict needs a decision, for example INC-7K3Q-D1; see `watchkeeper decisions list`")
            if verdict not in set(ReviewVerdict):
                fail(f"verdict {verdict!r} is none: say right, wrong or unsure")
            index = None if should_be is None else should_be - 1
            by = permitted_person(settings.home, *needed, ask_token=ask_token).name
            kept = reviews.add(one, ReviewVerdict(verdict), by=by, should_be=index, note=note)
            if as_json:
                print_json(kept)
            else:
                typer.echo(f"{kept.decision_id}: {kept.verdict.value}, by {kept.by}")
            return
        if should_be is not None or note:
            fail("--should-be and --note go with --verdict")
        if one is None and target is not None:
            Incidents(store).get(target)
        found = (Decisions(store).get(one),) if one else reviews.unreviewed(target)
        if as_json:
            print_json(found)
        elif sys.stdin.isatty() and sys.stdout.isatty() and found:
            by = permitted_person(settings.home, *needed, ask_token=ask_token).name
            _review_each(found, reviews, stdout_console(), by=by)
        else:
            print_table(
                ("ID", "ROLE", "SHARE", "OPTIONS", "ANSWER"),
                [
                    (r.id, r.role, f"{r.answer.probability:.2f}", str(len(r.options)), r.answer.text)
                    for r in found
                ],
                empty="every decision among several options was reviewed",
            )


@app.command()
def summary(as_json: Json = False) -> None:
    """Show how often the decisions of each role were right, as people reviewed them."""
    with opened() as (settings, store):
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.reviews import Reviews

        found = Reviews(store, AuditLog(settings.home)).summary()
        if as_json:
            print_json(found)
            return

        def share(value: float | None) -> str:
            return "-" if value is None else f"{value:.0%}"

        print_table(
            ("ROLE", "DECISIONS", "RIGHT", "WRONG", "UNSURE", "ACCURACY", "STATED BY THE MODEL"),
            [
                (
                    role.role,
                    str(role.decisions),
                    str(role.right),
                    str(role.wrong),
                    str(role.unsure),
                    share(role.accuracy),
                    share(role.stated),
                )
                for role in found
            ],
            empty="no decisions among several options yet",
        )


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Written whole; nothing is replaced.")],
    *,
    reviewed: Annotated[bool, typer.Option("--reviewed", help="Only what somebody reviewed.")] = False,
    cases: Annotated[
        bool,
        typer.Option("--cases", help="Reviewed diagnoses as questions with answers, for 'models tune'."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write decisions with their last review as JSON lines, for training and statistics."""
    if cases:
        _export_cases(file, as_json=as_json)
        return
    with opened() as (settings, store):
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.reviews import Reviews

        count = Reviews(store, AuditLog(settings.home)).export(file, reviewed=reviewed)
        if as_json:
            print_json({"file": str(file), "decisions": count})
        else:
            typer.echo(f"{file}: {count} decisions")


def _export_cases(file: Path, *, as_json: bool) -> None:
    with mistakes():
        from watchkeeper.runtime.context import Context
        from watchkeeper.runtime.journal import Journal
        from watchkeeper.runtime.orchestrator import engine_of, team_of
        from watchkeeper.runtime.reviewed_cases import reviewed_cases
        from watchkeeper.runtime.reviews import write_new
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.runtime.site import load_site

        settings = load_settings()
        # The model is not asked, and so not opened.
        team = team_of(engine_of(settings.model, settings), (), settings)
        with Journal(settings.home, store=settings.store_place) as journal:
            found, left_out = reviewed_cases(Context(load_site(settings), team, journal, settings))
        write_new(file, [case.model_dump_json(exclude_defaults=True) for case in found])
    if as_json:
        print_json({"file": str(file), "cases": len(found), "left_out": left_out})
    else:
        typer.echo(f"{file}: {len(found)} cases; {left_out} reviewed diagnoses cannot be asked again as then")


def _review_each(records: tuple[DecisionRecord, ...], reviews: Reviews, console: Console, *, by: str) -> None:
    """Ask about one decision after the other until there is none, or the person ends it."""
    from watchkeeper.runtime.reviews import ReviewVerdict

    words = {"r": ReviewVerdict.RIGHT, "w": ReviewVerdict.WRONG, "u": ReviewVerdict.UNSURE}
    for place, record in enumerate(records, start=1):
        console.rule(f"{record.id} ({place} of {len(records)}), {record.role}")
        typer.echo(plain(record.question))
        for number, option in enumerate(record.options, start=1):
            mark = ">" if number - 1 == record.chosen else " "
            typer.echo(f"{mark} {number:>2}  {option.probability:.2f}  {plain(option.text)}")
        word = ""
        while word not in {*words, "s", "q"}:
            word = typer.prompt("[r]ight, [w]rong, [u]nsure, [s]kip or [q]uit").strip().lower()[:1]
        if word == "q":
            return
        if word == "s":
            continue
        should_be = None
        while word == "w":
            said = typer.prompt(
                "which number would have been right (empty: none of them)", default=""
            ).strip()
            if not said:
                break
            if said.isdecimal() and 0 < int(said) <= len(record.options) and int(said) - 1 != record.chosen:
                should_be = int(said) - 1
                break
            typer.echo(f"a number from 1 to {len(record.options)} that was not chosen, please")
        note = typer.prompt("why (may be empty)", default="", show_default=False)
        reviews.add(record.id, words[word], by=by, should_be=should_be, note=note)


def _shares(record: DecisionRecord) -> str:
    """Where the probabilities come from, in words."""
    said = {"scored": "scored by the model", "derived": "derived from one answer", "unknown": "unknown"}
    calibrated = record.calibration_digest
    return said.get(record.basis, "") + (f", calibrated by {calibrated[:16]}" if calibrated else "")
