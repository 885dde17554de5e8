"""``watchkeeper decisions``: why an agent chose what it chose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.records import Json, opened, plain, print_json, print_pairs, print_table, upper, when

if TYPE_CHECKING:
    from watchkeeper.runtime.decisions import DecisionRecord

app = typer.Typer(no_args_is_help=True, help="Look at why agents chose what they chose.")


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


def _shares(record: DecisionRecord) -> str:
    """Where the probabilities come from, in words."""
    said = {"scored": "scored by the model", "derived": "derived from one answer", "unknown": "unknown"}
    calibrated = record.calibration_digest
    return said.get(record.basis, "") + (f", calibrated by {calibrated[:16]}" if calibrated else "")
