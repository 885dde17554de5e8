"""`watchkeeper predictors watch`: look again and again whether predictors still do as well as they did."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.predictors_drift import predictions_of, say_unwatched_streams, submitted
from watchkeeper.cli.records import mistakes, plain

if TYPE_CHECKING:
    from watchkeeper.runtime.settings import Settings
    from watchkeeper.tools.predictors.watching import DriftReport


def register(app: typer.Typer) -> None:
    """Add the command to `watchkeeper predictors`."""
    app.command()(watch)


def watch(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="The predictors; default: those of lifecycle.yaml.", show_default=False
        ),
    ] = None,
    every: Annotated[float, typer.Option(min=0.1, max=86_400, help="Seconds between two looks.")] = 60.0,
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
) -> None:
    """Submit an alert when a predictor of lifecycle.yaml is not as it was; `watchkeeper serve` handles it.

    One alert for each episode and each new sign of it, however often it is looked at. Ctrl-C ends it, and
    nothing is lost.
    """
    from watchkeeper.cli.output import INTERRUPTED

    with mistakes():
        from watchkeeper.runtime.errors import ConfigurationError, HaltedError, OperationError
        from watchkeeper.runtime.lifecycle_rules import FILE, LifecycleRules
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.tools.errors import ToolError

        settings = load_settings()
        rules = LifecycleRules.of_home(settings.home).predictors
        for name in names or ():
            if name not in rules:
                raise ConfigurationError(
                    f"predictor {name!r:.80} is not in {str(settings.home / FILE)!r}: say there how it is "
                    "retrained, or look at it with `watchkeeper predictors drift`"
                )
        watched = {name: rules[name].host for name in names or rules}
        if not watched:
            raise ConfigurationError(f"{str(settings.home / FILE)!r} names no predictor to watch")
        say_unwatched_streams()
        try:
            while True:
                failed = False
                for name, host in watched.items():
                    try:
                        report = _look(settings, name)
                        incidents = submitted(settings, report, host)
                    except HaltedError:
                        raise
                    except Exception as error:  # noqa: BLE001 (the others are watched all the same)
                        expected = isinstance(error, ToolError | OperationError)
                        said = str(error) if expected else f"{type(error).__name__}: {error}"
                        typer.echo(f"{name}: not looked at: {plain(said)}", err=True)
                        failed = True
                        continue
                    if incidents:
                        signs = plain(", ".join(report.signals))
                        typer.echo(f"{name}: {signs}: {', '.join(incidents)}")
                if once:
                    raise typer.Exit(int(failed))
                time.sleep(every)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def _look(settings: Settings, name: str) -> DriftReport:
    from watchkeeper.tools.predictors.watching import look
    from watchkeeper.tools.versions import Versions

    version = Versions(settings.home, create=False).get(name)
    kept = predictions_of(settings)
    try:
        return look(kept, version)
    finally:
        kept.close()
