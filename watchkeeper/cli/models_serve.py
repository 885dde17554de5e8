"""`watchkeeper models serve`: an OpenAI-compatible server over the engine, and its API keys."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.output import INTERRUPTED, fail, stderr_console

if TYPE_CHECKING:
    from watchkeeper.models.interface import Engine
    from watchkeeper.models.loading import Quantization

_EXTRA = "'watchkeeper models serve' needs more packages; install them with: pip install 'watchkeeper[serve]'"
_QUANTIZATIONS = ("auto", "nf4", "int8", "none")


def register(app: typer.Typer) -> None:
    """Add the commands to `watchkeeper models`."""
    app.command()(serve)
    app.command("api-key")(api_key)


def serve(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="Id of the catalog or a folder; default: as set up.", show_default=False
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Name or address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8321,
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Who may ask; see 'watchkeeper models api-key'."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody ask who can reach the server.")
    ] = False,
    quantization: Annotated[str | None, typer.Option(help="auto, nf4, int8 or none.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model for clients; default: its id.")] = None,
    running: Annotated[int, typer.Option(min=1, max=256, help="Requests in the engine at once.")] = 32,
    waiting: Annotated[
        int, typer.Option(min=0, max=100_000, help="Requests that may wait; more are told to come back.")
    ] = 128,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds that running requests are given when it is stopped.")
    ] = 10.0,
) -> None:
    """Serve a model over HTTP, as OpenAI's API does: chat completions, tools, JSON schemas, streams.

    Also POST /v1/choose, GET /health and GET /metrics. Installed adapters are models of the name
    MODEL:ADAPTER. Ctrl-C answers what is running, and ends; a second
    one ends at once.
    """
    try:
        from watchkeeper.models.server.app import Service
        from watchkeeper.models.server.keys import ApiKeys
        from watchkeeper.models.server.running import Runner, address_of, listen
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("watchkeeper"):
            raise
        fail(_EXTRA)
    from watchkeeper.cli.models import ensure_pulled
    from watchkeeper.cli.records import mistakes
    from watchkeeper.models import open_engine
    from watchkeeper.models.catalog import find_model
    from watchkeeper.models.endpoint import is_endpoint
    from watchkeeper.runtime.settings import load_settings

    console = stderr_console()
    with mistakes():
        settings = load_settings(model=model, quantization=_quantization(quantization))
    # What can be wrong is found before a model is loaded.
    if not is_endpoint(settings.model):
        find_model(settings.model)
    keys = ApiKeys.read(api_key_file) if api_key_file is not None else None
    with listen(host, port, guarded=keys is not None or insecure) as listening:
        ensure_pulled(settings.model, console)
        started = time.monotonic()
        engine = open_engine(settings.model, settings.quantization)
        try:
            _load_adapters(engine, settings.model)
            service = Service(
                engine,
                name=name,
                keys=keys,
                local_only=keys is None and not insecure,
                running=running,
                waiting=waiting,
            )
            seconds = time.monotonic() - started
            who = f"{len(keys.digests)} API keys" if keys is not None else "no API keys"
            console.print(
                f"{service.name} (loaded in {seconds:.1f} s) is served at {address_of(listening)} "
                f"with {who}; Ctrl-C stops it",
                highlight=False,
                markup=False,
            )
            runner = Runner(service, grace=grace)
            runner.run([listening])
        finally:
            engine.close()
    console.print("stopped", highlight=False)
    if runner.stopped_by == signal.SIGINT:
        raise typer.Exit(INTERRUPTED)


def api_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")],
    file: Annotated[Path, typer.Option(metavar="FILE", help="Where its digest is added.")],
) -> None:
    """Make an API key, print it once, and add its digest to a file for 'watchkeeper models serve'."""
    from watchkeeper.models.server.keys import add_key

    typer.echo(add_key(file, name))
    typer.echo(
        f"added to {file}, which 'watchkeeper models serve' reads when it starts; the key is shown this once",
        err=True,
    )


def _load_adapters(engine: Engine, model: str) -> None:
    """Load what is installed beside the model, so that clients may name it."""
    from watchkeeper.models.adapter_store import installed_adapters
    from watchkeeper.models.catalog import find_model
    from watchkeeper.models.engine import LocalEngine

    if isinstance(engine, LocalEngine):
        for name, folder in installed_adapters(find_model(model)).items():
            engine.load_adapter(name, folder)


def _quantization(given: str | None) -> Quantization | None:
    if given is not None and given not in _QUANTIZATIONS:
        raise typer.BadParameter(f"--quantization is one of {', '.join(_QUANTIZATIONS)}, not {given!r}")
    return given  # type: ignore[return-value]  # one of the above
