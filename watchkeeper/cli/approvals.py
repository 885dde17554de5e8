"""``watchkeeper approvals``: questions that wait for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.identity import AskToken
from watchkeeper.cli.records import (
    Json,
    day,
    mistakes,
    opened,
    print_json,
    print_table,
    upper,
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
                    "never" if approval.kind is ApprovalKind.IN_DOUBT else day(approval.expires_at),
                    ("was this done? " if approval.kind is ApprovalKind.IN_DOUBT else "") + approval.summary,
                )
                for approval in found
            ],
            empty="no questions" if all_ else "no question waits for an answer",
        )


@app.command()
def show(approval_id: Id, as_json: Json = False) -> None:
    """Show a question with what would change, why, and what else could be done."""
    with opened() as (_, store):
        from watchkeeper.cli.question import diff_lines, question_lines
        from watchkeeper.runtime.approvals import Approvals
        from watchkeeper.runtime.question_view import view_question
        from watchkeeper.runtime.steps import Steps

        approval = Approvals(store).get(approval_id)
        view = view_question(store, approval)
        if as_json:
            step = Steps(store).get(approval.step_id)
            print_json(
                {
                    "approval": approval.model_dump(mode="json"),
                    "step": step.model_dump(mode="json"),
                    "view": view.model_dump(mode="json", exclude={"approval"}),
                }
            )
            return
        for name, text in question_lines(view):
            typer.echo(f"{name:<12}  {text}")
        if view.diff:
            typer.echo("")
        for _, line in diff_lines(view):
            typer.echo(line)


@app.command()
def approve(approval_id: Id, reason: Reason = "", ask_token: AskToken = False, as_json: Json = False) -> None:
    """Allow the action, once and exactly as it was shown."""
    from watchkeeper.runtime.approvals import Answer

    _answer(approval_id, Answer.APPROVE, reason, ask_token=ask_token, as_json=as_json)


@app.command()
def edit(
    approval_id: Id,
    arguments: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE...", help="Arguments that differ; values are YAML.")
    ],
    reason: Reason = "",
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Want the action with other arguments: it is planned anew, and policy and people are asked anew."""
    from watchkeeper.runtime.approvals import Answer

    _answer(approval_id, Answer.EDIT, reason, changed=arguments, ask_token=ask_token, as_json=as_json)


@app.command()
def reject(
    approval_id: Id,
    reason: Annotated[str, typer.Option("--reason", help="Why; the attempt ends.")],
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Forbid the action."""
    from watchkeeper.runtime.approvals import Answer

    _answer(approval_id, Answer.REJECT, reason, ask_token=ask_token, as_json=as_json)


@app.command()
def respond(
    approval_id: Id,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What the agents are told.")],
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Answer in words: the action is not done, and the agents go on knowing this."""
    from watchkeeper.runtime.approvals import Answer

    _answer(approval_id, Answer.RESPOND, text, ask_token=ask_token, as_json=as_json)


@app.command()
def escalate(
    approval_id: Id,
    reason: Annotated[str, typer.Option("--reason", help="Why; who takes over reads it.")],
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Hand the incident over to people."""
    from watchkeeper.runtime.approvals import Answer

    _answer(approval_id, Answer.ESCALATE, reason, ask_token=ask_token, as_json=as_json)


@app.command()
def terminate(
    approval_id: Id,
    reason: Annotated[str, typer.Option("--reason", help="Why.")],
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Take back what was applied of the plan, and close the incident."""
    from watchkeeper.runtime.approvals import Answer

    _answer(approval_id, Answer.TERMINATE, reason, ask_token=ask_token, as_json=as_json)


@app.command()
def done(approval_id: Id, reason: Reason = "", ask_token: AskToken = False, as_json: Json = False) -> None:
    """Say that an effect in doubt took place, also after its incident ended."""
    from watchkeeper.runtime.approvals import Answer

    _answer(approval_id, Answer.DONE, reason, ask_token=ask_token, as_json=as_json)


@app.command("not-done")
def not_done(
    approval_id: Id, reason: Reason = "", ask_token: AskToken = False, as_json: Json = False
) -> None:
    """Say that an effect in doubt did not take place, also after its incident ended."""
    from watchkeeper.runtime.approvals import Answer

    _answer(approval_id, Answer.NOT_DONE, reason, ask_token=ask_token, as_json=as_json)


def _answer(
    approval_id: str,
    answer: Answer,
    reason: str,
    *,
    changed: list[str] | None = None,
    ask_token: bool,
    as_json: bool,
) -> None:
    with mistakes():
        from watchkeeper.cli.identity import given_token
        from watchkeeper.runtime.journal import Journal
        from watchkeeper.runtime.settings import load_settings

        token = given_token(ask=ask_token)
        settings = load_settings()
        with Journal(settings.home, store=settings.store_place) as journal:
            person = journal.check_answerer(approval_id, answer, token=token)
            arguments = None
            if changed is not None:
                from watchkeeper.cli.edits import edited_arguments

                arguments = edited_arguments(settings, journal, approval_id, changed, by=person.name)
            approval = journal.answer(approval_id, answer, by=person, reason=reason, arguments=arguments)
    if as_json:
        print_json(approval)
        return
    if approval.decided_by is None:
        others = "another person" if approval.missing == 1 else f"{approval.missing} other people"
        typer.echo(f"{approval.id}: {answer.value}, by {approval.votes[-1].by}; {others} must, too")
        return
    own = " (you asked for it yourself; recorded)" if approval.self_approved else ""
    typer.echo(f"{approval.id}: {answer.value}, by {approval.decided_by}{own}")
