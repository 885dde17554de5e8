"""`watchkeeper predictors serve`: champions answer over HTTP."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from watchkeeper.cli.output import INTERRUPTED, fail, stderr_console
from watchkeeper.cli.records import mistakes

_EXTRA = (
    "'watchkeeper predictors serve' needs more packages; install them with: "
    "pip install 'watchkeeper[registry,serve]'"
)


def register(app: typer.Typer) -> None:
    """Add the command to `watchkeeper predictors`."""
    app.command()(serve)


def serve(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="The predictors; default: all.", show_default=False),
    ] = None,
    host: Annotated[str, typer.Option(help="Name or address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8322,
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Who may ask; see 'watchkeeper models api-key'."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody ask who can reach the server.")
    ] = False,
    window: Annotated[
        float,
        typer.Option(min=0, max=1000, help="Milliseconds that a request waits for others; 0 for none."),
    ] = 2.0,
    most_rows: Annotated[
        int, typer.Option(min=1, max=100_000, help="Rows that are computed together.")
    ] = 256,
    waiting: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Rows that may wait; more are told to come back.")
    ] = 4096,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Challengers answer too; that is recorded, and nobody gets it.")
    ] = False,
    canary: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the requests that challengers answer.")
    ] = 0.0,
    record: Annotated[
        bool, typer.Option("--record/--no-record", help="Keep rows and answers, for labels and drift.")
    ] = True,
    keep_rows: Annotated[int, typer.Option(min=1, help="Predictions of each that are kept.")] = 100_000,
    keep_days: Annotated[float, typer.Option(min=0.01, help="Days that they are kept.")] = 90,
    keep_first: Annotated[
        int, typer.Option(min=0, help="First answers of a version that are kept as long as it answers.")
    ] = 500,
    load_seconds: Annotated[
        float,
        typer.Option(min=1, max=3600, help="Seconds that a version may load before it is taken back."),
    ] = 120.0,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds that running requests are given when it is stopped.")
    ] = 10.0,
) -> None:
    """Serve the champions over HTTP: POST /v1/predictors/NAME/predict; also /health and /metrics.

    A promoted version answers within a second, without a restart. Answers name the version that gave them.
    """
    try:
        from watchkeeper.models.server.running import Runner, address_of, listen
        from watchkeeper.tools.serving.app import PredictService
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("watchkeeper"):
            raise
        fail(_EXTRA)
    from watchkeeper.models.server.keys import ApiKeys
    from watchkeeper.runtime.settings import load_settings
    from watchkeeper.tools.errors import VersionError
    from watchkeeper.tools.predictors.recording import FILE, Predictions
    from watchkeeper.tools.serving.answering import ChallengerMode
    from watchkeeper.tools.serving.following import Follower
    from watchkeeper.tools.versions import Versions
    from watchkeeper.tools.versions.server_file import announced

    if shadow and canary:
        fail("a challenger is a shadow or a canary: give --shadow or --canary, not both")
    mode = ChallengerMode.SHADOW if shadow else ChallengerMode.CANARY if canary else ChallengerMode.OFF
    console = stderr_console()
    with mistakes():
        versions = Versions(load_settings().home, create=False)
        for name in names or ():
            versions.aliases(name)
        keys = ApiKeys.read(api_key_file) if api_key_file is not None else None
        follower = Follower(versions, names or ())
        if not versions.names():
            raise VersionError("no predictor is registered; see 'watchkeeper predictors register'")
        kept = None
        if record:
            path = versions.folder / FILE
            kept = Predictions(path, keep_rows=keep_rows, keep_days=keep_days, keep_first=keep_first)
        with listen(host, port, guarded=keys is not None or insecure) as listening:
            follower.start()
            service = PredictService(
                follower,
                keys=keys,
                local_only=keys is None and not insecure,
                challenger=mode,
                canary=canary,
                predictions=kept,
                window=window / 1000,
                most_rows=most_rows,
                waiting_rows=waiting,
            )
            address = address_of(listening)
            who = f"{len(keys.digests)} API keys" if keys is not None else "no API keys"
            console.print(
                f"{', '.join(follower.names)} served at {address}/predictors with {who}; Ctrl-C stops it",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            runner = Runner(service, grace=grace)
            where = address.removesuffix("/v1")
            with announced(versions.folder, where, names=tuple(names or ()), load_seconds=load_seconds):
                runner.run([listening])
    console.print("stopped", highlight=False)
    if runner.stopped_by == signal.SIGINT:
        raise typer.Exit(INTERRUPTED)
