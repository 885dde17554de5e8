"""``watchkeeper approvals``: questions that wait for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.records import (
    Json,
    day,
    opened,
    plain,
    print_json,
    print_pairs,
    print_table,
    upper,
    when,
)

if TYPE_CHECKING:
    from watchkeeper.runtime.approvals import Answer

app = typer.Typer(no_args_is_help=True, help="Look at questions that wait for a person, and answer them.")

Id = Annotated[str, typer.Argument(metavar="APPROVAL", callback=upper, help="For example APR-7K3QW.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the answer.")]


@app.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Answered and expired ones too.")] = False,
    incident: Annotated[str | None, typer.Option(callback=upper, help="Only those of this incident.")] = None,
    as_json: Json = False,
) -> None:
    """List the questions that wait for an answer."""
    with opened() as (_, store):
        from watchkeeper.runtime.approvals import ApprovalKind, Approvals, ApprovalStatus

        found = Approvals(store).list(
            status=None if all_ else ApprovalStatus.PENDING, incident_id=incident, limit=1000
        )
        if as_json:
            print_json(found)
            return
        print_table(
            ("ID", "STATUS", "TIER", "INCIDENT", "EXPIRES (UTC)", "QUESTION"),
            [
                (
                    approval.id,
                    approval.status.value,
                    str(approval.tier),
                    approval.incident_id,
                    day(approval.expires_at),
                    ("was this done? " if approval.kind is ApprovalKind.IN_DOUBT else "") + approval.summary,
                )
                for approval in found
            ],
            empty="no questions" if all_ else "no question waits for an answer",
        )


@app.command()
def show(approval_id: Id, as_json: Json = False) -> None:
    """Show a question with what would change."""
    with opened() as (_, store):
        from watchkeeper.runtime.approvals import Approvals
        from watchkeeper.runtime.steps import Steps

        approval = Approvals(store).get(approval_id)
        step = Steps(store).get(approval.step_id)
        if as_json:
            print_json({"approval": approval.model_dump(mode="json"), "step": step.model_dump(mode="json")})
            return
        answered = approval.decided_by is not None
        print_pairs(
            [
                ("approval", approval.id),
                ("question", approval.summary),
                ("status", approval.status.value),
                ("incident", approval.incident_id),
                ("action", f"{step.action} (version {step.version}) on {step.host}"),
                ("arguments", ", ".join(f"{name}={value}" for name, value in step.arguments.items())),
                ("undo", step.reversibility.value),
                ("risk", step.plan.risk),
                ("tier", str(approval.tier)),
                ("policy", f"{step.policy.rule}: {step.policy.reason}" if step.policy else ""),
                ("asked by", f"{approval.requester} at {when(approval.requested_at)} UTC"),
                ("said yes", ", ".join(vote.by for vote in approval.votes) if approval.quorum > 1 else ""),
                ("people", str(approval.quorum) if approval.quorum > 1 else ""),
                ("expires", f"{when(approval.expires_at)} UTC" if not answered else ""),
                (
                    "answer",
                    f"{approval.answer} by {approval.decided_by} at {when(approval.decided_at)} UTC"
                    + (" (who asked)" if approval.self_approved else "")
                    if answered
                    else "",
                ),
                ("reason", approval.reason),
                ("digest", approval.digest),
            ]
        )
        if approval.diff:
            typer.echo("\n" + plain(approval.diff))


@app.command()
def approve(approval_id: Id, reason: Reason = "", as_json: Json = False) -> None:
    """Allow the action, once and exactly as it was shown."""
    from watchkeeper.runtime.approvals import Answer

    _answer(approval_id, Answer.APPROVE, reason, as_json=as_json)


@app.command()
def reject(
    approval_id: Id,
    reason: Annotated[str, typer.Option("--reason", help="Why; the agents choose something else.")],
    as_json: Json = False,
) -> None:
    """Forbid the action."""
    from watchkeeper.runtime.approvals import Answer

    _answer(approval_id, Answer.REJECT, reason, as_json=as_json)


@app.command()
def done(approval_id: Id, reason: Reason = "", as_json: Json = False) -> None:
    """Say that an effect in doubt took place."""
    from watchkeeper.runtime.approvals import Answer

    _answer(approval_id, Answer.DONE, reason, as_json=as_json)


@app.command("not-done")
def not_done(approval_id: Id, reason: Reason = "", as_json: Json = False) -> None:
    """Say that an effect in doubt did not take place."""
    from watchkeeper.runtime.approvals import Answer

    _answer(approval_id, Answer.NOT_DONE, reason, as_json=as_json)


def _answer(approval_id: str, answer: Answer, reason: str, *, as_json: bool) -> None:
    with opened() as (settings, store):
        from watchkeeper.runtime.answers import give_answer
        from watchkeeper.runtime.approvals import Approvals
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.people import current_person

        approval = give_answer(
            store,
            Approvals(store),
            AuditLog(settings.home),
            approval_id,
            answer,
            by=current_person(),
            reason=reason,
        )
        if as_json:
            print_json(approval)
            return
        if approval.decided_by is None:
            others = "another person" if approval.missing == 1 else f"{approval.missing} other people"
            typer.echo(f"{approval.id}: {answer.value}, by {approval.votes[-1].by}; {others} must, too")
            return
        own = " (you asked for it yourself; recorded)" if approval.self_approved else ""
        typer.echo(f"{approval.id}: {answer.value}, by {approval.decided_by}{own}")
