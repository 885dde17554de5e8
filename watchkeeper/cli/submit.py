"""`watchkeeper submit`: give an alert to the workers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def submit(
    alert: Annotated[Path, typer.Argument(metavar="ALERT.yaml", help="The alert to handle.")],
    inventory: Annotated[Path | None, typer.Option(help="The hosts that may be touched (YAML).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Open an incident for an alert, leave it to `watchkeeper serve`, and print its id."""
    from watchkeeper.cli.output import print_json
    from watchkeeper.cli.records import mistakes
    from watchkeeper.runtime.alerts import Alert
    from watchkeeper.runtime.incident_jobs import submit as give_to_workers
    from watchkeeper.runtime.journal import Journal
    from watchkeeper.runtime.people import token_from_environment
    from watchkeeper.runtime.roles import Permission
    from watchkeeper.runtime.settings import load_settings
    from watchkeeper.tools.inventory import Inventory
    from watchkeeper.tools.plugins import load_registry

    with mistakes():
        settings = load_settings(inventory=inventory)
        raised, written = Alert.read(alert)
        raised.check(
            Inventory.load(settings.inventory_path),
            load_registry(settings.tools, settings.log_predictor),
            document=written,
        )
        with Journal(settings.home, store=settings.store_place, solo=settings.solo) as journal:
            person = journal.people.at_terminal(token=token_from_environment())
            person.check(Permission.RUN, "have an incident handled")
            incident = give_to_workers(journal, raised, by=person.name)
    if as_json:
        print_json(incident.model_dump(mode="json"))
    else:
        if incident.alert_count > 1:
            told = f"joins {incident.id}, which is open for the same (alert {incident.alert_count} of it)"
            typer.echo(told, err=True)
        typer.echo(incident.id)
