"""`watchkeeper demo`: a real service is broken in a temporary folder, and agents mend it."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from watchkeeper.demo.environment import DemoEnvironment
    from watchkeeper.demo.runner import ScenarioResult

NOT_OK = 1
"""Exit code where the oracle was not content with a scenario."""


def demo(
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            help="killed, disk-full, bad-config, stale or injection; may be given several times. "
            "[default: killed]",
            metavar="NAME",
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Play every scenario.")] = False,
    approve: Annotated[
        str | None,
        typer.Option(
            help="How questions are answered: ask, yes or no. [default: ask; yes where there is no terminal]"
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Id of a model, or a folder.", metavar="ID")] = None,
    seed: Annotated[
        int | None, typer.Option(help="What names and wording are drawn from. [default: another each time]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Break a real service and watch agents mend it, in a temporary folder.

    A small web application and its worker run under a real supervisord. Each scenario breaks them in
    another way and raises the same alert. An oracle outside the agents' process, which knows nothing of
    what they say, judges the end. Ends with code 0 where it is content with all.
    """
    from watchkeeper.cli.output import stderr_console
    from watchkeeper.cli.records import mistakes
    from watchkeeper.demo.environment import cleanup_stale
    from watchkeeper.demo.errors import DemoError
    from watchkeeper.demo.faults import SCENARIOS
    from watchkeeper.demo.namespace import needs_namespace, reexec_in_namespace

    names = SCENARIOS if all_ else tuple(scenario or ("killed",))
    for name in names:
        if name not in SCENARIOS:
            raise typer.BadParameter(f"no scenario is named {name!r} (there are: {', '.join(SCENARIOS)})")
    if approve not in {None, "ask", "yes", "no"}:
        raise typer.BadParameter(f"--approve is ask, yes or no, not {approve!r}")
    if needs_namespace():
        # Only there may a person who is not root mount the small file system that gets filled.
        reexec_in_namespace()
    # Whoever ends the demo, by Ctrl-C or by a timeout, leaves no service running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = stderr_console()
    cleanup_stale()
    first = seed if seed is not None else random.SystemRandom().randrange(1, 2**31)
    try:
        with mistakes():
            results = _play(console, names, first, approve=approve, model=model)
    except DemoError as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        raise typer.Exit(2) from None
    if as_json:
        print(json.dumps([result.model_dump(mode="json") for result in results], indent=2))
    elif len(results) > 1:
        _table(console, results)
    if not all(result.ok or result.skipped for result in results):
        raise typer.Exit(NOT_OK)


def _play(
    console: Console, names: tuple[str, ...], first: int, *, approve: str | None, model: str | None
) -> list[ScenarioResult]:
    from watchkeeper.cli.models import ensure_pulled
    from watchkeeper.cli.run import answerer_of, lazy_engine
    from watchkeeper.cli.terminal import Terminal
    from watchkeeper.cli.view import EventView
    from watchkeeper.demo.runner import Player
    from watchkeeper.runtime.settings import load_settings

    settings = load_settings(model=model, solo=True)
    ensure_pulled(settings.model, console)
    if approve is None:
        approve = "ask" if sys.stdin.isatty() else "yes"
        if approve == "yes":
            console.print(
                "No terminal to ask at: every action inside the demo's own temporary folder is approved.",
                style="yellow",
            )
    results: list[ScenarioResult] = []
    with contextlib.ExitStack() as stack:
        engine = lazy_engine(console, settings)
        stack.callback(engine.close)
        engine.preload()
        player = Player(
            engine=engine,
            settings=settings,
            answerer=answerer_of(approve, Terminal(console)),
            expect_refusal=approve == "no",
            on_event=EventView(console).show,
            on_site=lambda site: _introduce(console, site),
        )
        for number, name in enumerate(names):
            console.rule(f"[bold]{name}[/bold]")
            try:
                results.append(player.play(name, first + number))
            except KeyboardInterrupt:
                console.print("\nstopped; the demo's services were ended and its folder removed")
                raise typer.Exit(130) from None
            _verdict(console, results[-1])
    return results


def _introduce(console: Console, environment: DemoEnvironment) -> None:
    site = environment.site
    assert environment.injection is not None
    console.print(
        f"{site.web} and {site.worker} run under supervisord in {site.base}. The agents are not told: "
        f"{environment.injection.detail}.",
        style="dim",
        highlight=False,
        markup=False,
    )


def _verdict(console: Console, result: ScenarioResult) -> None:
    from rich.markup import escape

    from watchkeeper.cli.records import plain

    if result.skipped:
        console.print(f"skipped: {result.skipped}", style="yellow", markup=False)
        return
    said = "[bold green]ok[/bold green]" if result.ok else "[bold red]not ok[/bold red]"
    console.print(
        f"{result.state} in {result.seconds:.0f} s; an oracle that looked at the service, its data and every "
        f"file, and not at the report: {said}",
        highlight=False,
    )
    console.print(f"report: {escape(result.report)}", highlight=False, soft_wrap=True)
    for check in result.checks:
        console.print(f"  {check.name}: {plain(check.detail)}", style="red", highlight=False, markup=False)


def _table(console: Console, results: list[ScenarioResult]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from watchkeeper.cli.records import plain

    table = Table(
        "scenario", "fault", "diagnosis", "actions", "end state", "first choice", "seconds", "oracle"
    )
    for result in results:
        if result.skipped:
            table.add_row(result.scenario, escape(f"skipped: {result.skipped}"))
            continue
        first = result.first_choice
        cells = (
            result.scenario,
            result.fault,
            result.diagnosis,
            "\n".join(f"{taken.action}: {taken.status}" for taken in result.actions) or "none",
            result.state,
            "-" if first is None else f"{'right' if first.right else 'wrong'} (of {first.options})",
            f"{result.seconds:.0f}",
            "ok" if result.ok else "not ok",
        )
        table.add_row(*(escape(plain(cell)) for cell in cells))
    console.print(table)
