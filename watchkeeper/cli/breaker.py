"""``watchkeeper breaker``: actions that were stopped because they keep failing."""

from __future__ import annotations

from typing import Annotated

import typer

from watchkeeper.cli.identity import AskToken, permitted_person
from watchkeeper.cli.records import Json, opened, print_json, print_table, when

app = typer.Typer(no_args_is_help=True, help="Look at actions that were stopped because they keep failing.")


@app.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Closed ones with recent failures, too.")] = False,
    as_json: Json = False,
) -> None:
    """List the circuit breakers that are open."""
    with opened() as (settings, store):
        from watchkeeper.runtime.breaker import Breaker

        found = Breaker(store, settings.limits.breaker).list(closed=all_)
        if as_json:
            print_json(found)
            return
        print_table(
            ("ACTION", "HOST", "SERVICE", "STATE", "ONE TRY FROM (UTC)", "FAILURES"),
            [
                (
                    status.action,
                    status.host,
                    status.service or "-",
                    status.state.value,
                    when(status.retry_at),
                    ", ".join(f"{failure.step_id} {failure.state}" for failure in status.failures[-3:]),
                )
                for status in found
            ],
            empty="no breaker has anything against it" if all_ else "no breaker is open",
        )


@app.command()
def reset(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="For example service.restart.")],
    host: Annotated[str, typer.Argument(metavar="HOST", help="Where.")],
    service: Annotated[str, typer.Option(help="The service that the action was for.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit log.")] = "",
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Close a circuit breaker: the action may be tried again, as the policy says."""
    with opened() as (settings, store):
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.breaker import Breaker
        from watchkeeper.runtime.limits import ActionTarget
        from watchkeeper.runtime.roles import Permission

        breaker = Breaker(store, settings.limits.breaker)
        target = ActionTarget(action, host, service)
        what = f"reset the breaker of {target}"
        person = permitted_person(settings.home, Permission.RESET_BREAKER, what, ask_token=ask_token).name
        before = breaker.reset(target, AuditLog(settings.home), by=person, reason=reason)
        after = breaker.status(target)
        if as_json:
            print_json(after)
            return
        typer.echo(f"{target}: was {before.state.value}, is {after.state.value}, by {person}")
