"""``watchkeeper backup`` and ``watchkeeper restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from watchkeeper.cli.identity import AskToken, permitted_person
from watchkeeper.cli.records import Json, mistakes, print_json, when


def backup(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER_OR_FILE", help="A folder that is there, or a new file in one: NAME.tar.gz."
        ),
    ],
    *,
    with_key: Annotated[
        bool,
        typer.Option(
            "--with-key", help="Include the key that signs the audit log: keep such an archive safe."
        ),
    ] = False,
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Back up the home into one archive, while incidents run; models are left out."""
    with mistakes():
        import os

        from watchkeeper import __version__
        from watchkeeper.cli.output import human_bytes
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.backup import back_up
        from watchkeeper.runtime.errors import AuditError
        from watchkeeper.runtime.roles import Permission
        from watchkeeper.runtime.settings import load_settings

        settings = load_settings()
        person = permitted_person(settings.home, Permission.BACK_UP, "back up the home", ask_token=ask_token)
        named = os.environ.get("WATCHKEEPER_CONFIG")
        made = back_up(
            settings,
            target.absolute(),
            by=person.name,
            version=__version__,
            with_key=with_key,
            config=Path(named) if named else None,
        )
        size = made.path.stat().st_size
        try:
            AuditLog(settings.home).append(
                "backed-up",
                {
                    "by": person.name,
                    "known_by": person.proof.value,
                    "archive": str(made.path),
                    "archive_sha256": made.sha256,
                    "with_key": with_key,
                },
            )
        except AuditError as error:
            # A disk that is full is when a backup is wanted most.
            typer.echo(f"the backup is made, but the audit log does not tell of it: {error}", err=True)
        if as_json:
            print_json(
                {
                    "archive": str(made.path),
                    "sha256": made.sha256,
                    "bytes": size,
                    "files": len(made.manifest.files),
                    "with_key": with_key,
                    "database": made.manifest.database,
                    "live_incidents": list(made.manifest.live),
                    "audit_entries": made.manifest.audit_entries,
                }
            )
            return
        typer.echo(
            f"{made.path}: {len(made.manifest.files)} files, {human_bytes(size)}, SHA-256 {made.sha256}"
        )
        if not made.manifest.database:
            typer.echo(
                "THE DATABASE IS NOT IN IT: it is on a server; dump it with pg_dump right before each backup",
                err=True,
            )
        if not with_key:
            typer.echo(
                "the key that signs the audit log is not in it: keep keys/audit.key of the home elsewhere"
            )


def restore(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="What `watchkeeper backup` wrote.")],
    home: Annotated[
        Path | None, typer.Option(help="Where to; default: Watchkeeper's home.", show_default=False)
    ] = None,
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="Move a home that is there aside; its models move over.")
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The key that signs the audit log, where the archive has none."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The PostgreSQL database, restored before, where the archive has none."
        ),
    ] = None,
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Check a backup and put it in the place of the home; open incidents can be resumed."""
    with mistakes():
        from watchkeeper.models.home import home_folder
        from watchkeeper.runtime.backup import MODELS
        from watchkeeper.runtime.restoring import restore as restore_archive
        from watchkeeper.runtime.roles import Permission

        place = (home or home_folder()).expanduser()
        # The users of a home that is there say who may replace it; of one that is not, nobody is asked.
        person = permitted_person(place, Permission.BACK_UP, "restore a backup", ask_token=ask_token)
        done = restore_archive(
            archive,
            place,
            by=person.name,
            replace=replace,
            key=key,
            store=store,
        )
        if as_json:
            print_json(done)
            return
        typer.echo(f"{done.home} is as it was at {when(done.made_at)} UTC")
        if done.other_store:
            typer.echo(
                f"BUT ITS CONFIGURATION NAMES ANOTHER DATABASE ({done.other_store}), WHICH WAS NEITHER "
                "RESTORED NOR STOPPED: before anything runs, have `store:` in config.yaml and "
                "WATCHKEEPER_STORE name the one in this home",
                err=True,
            )
        if done.aside:
            models = done.aside / MODELS
            left = "; its models could not be moved and lie there, too" if models.exists() else ""
            typer.echo(f"what was there before lies in {done.aside}{left}")
        for lay, lies in done.elsewhere.items():
            typer.echo(f"{lay} lay outside of the home; its copy is {lies}")
        if done.new_key:
            typer.echo(
                "nobody has the key of its audit log: it is closed, still verified, and a new one is begun"
            )
        typer.echo(
            "anchors of its audit log that were made after the backup no longer fit: keep their folder, and "
            "begin another: watchkeeper audit anchor NEW_FOLDER"
        )
        if done.safe.expired:
            typer.echo(f"expired, since they may have been used: {', '.join(done.safe.expired)}")
        if done.safe.in_doubt:
            typer.echo(f"in doubt, so it is looked at before anything: {', '.join(done.safe.in_doubt)}")
        if done.safe.calls.ended:
            typer.echo(
                f"nobody is called any more about questions that expired: {', '.join(done.safe.calls.ended)}"
            )
        for escalation in done.safe.calls.held:
            typer.echo(
                f"held, since people may have been told since: {escalation}; where they were not: "
                f"watchkeeper escalations release {escalation}"
            )
        for name, tokens in done.users_back.items():
            typer.echo(
                f"{name} is a user as when the backup was made (tokens: {len(tokens)}); where that is over: "
                f"watchkeeper users remove {name}"
            )
        typer.echo(
            f"everything is stopped there by {done.stopped.by} ({done.stopped.reason}); once looked over: "
            "watchkeeper stop --lift"
        )
        for incident in done.safe.live:
            typer.echo(f"go on with: watchkeeper run --resume {incident}")
