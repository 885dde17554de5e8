"""``watchkeeper configs``: the versions of configuration files under which services were well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.records import Json, mistakes, print_json, print_table, when

if TYPE_CHECKING:
    from watchkeeper.runtime.site import Site

app = typer.Typer(
    no_args_is_help=True,
    help="Keep configuration while services are well, so that it can be put back, and list what is kept.",
)

Host = Annotated[
    str | None, typer.Option("--host", help="A host of the inventory. [default: all]", show_default=False)
]
Inventory = Annotated[Path | None, typer.Option(help="The hosts (YAML).")]


@app.command()
def keep(host: Host = None, inventory: Inventory = None, as_json: Json = False) -> None:
    """Keep the files of every service that is well now as its last good versions.

    A service is well while its checks of the inventory pass; a file counts if the service was started after
    its last change. `watchkeeper serve` does this every five minutes, and every incident that was resolved
    does it for its service.
    """
    from watchkeeper.runtime.good_configs import keep_good_configs

    with mistakes():
        kept = keep_good_configs(_site(inventory), host)
    if as_json:
        print_json(
            {
                "services": [
                    {
                        "host": one.host,
                        "service": one.service,
                        "files": [str(path) for path in one.files],
                        "reason": one.reason,
                    }
                    for one in kept
                ]
            }
        )
        return
    print_table(
        ("HOST", "SERVICE", "KNOWN TO BE GOOD NOW", "NOT LOOKED AT BECAUSE"),
        [(one.host, one.service, ", ".join(map(str, one.files)) or "-", one.reason or "-") for one in kept],
        empty="no service of the inventory has configuration files",
    )


@app.command("list")
def list_(host: Host = None, inventory: Inventory = None, as_json: Json = False) -> None:
    """List the configuration files of the inventory, with the newest version that is known to be good."""
    from watchkeeper.tools.archive import ConfigArchive

    rows = []
    with mistakes():
        site = _site(inventory)
        specs = site.inventory.hosts if host is None else (site.inventory.host(host),)
        for spec in specs:
            archive = ConfigArchive.of(site.target(spec.name))
            for service in spec.services:
                rows += [(spec.name, service.name, path, archive.versions(path)) for path in service.config]
    if as_json:
        print_json(
            {
                "files": [
                    {
                        "host": name,
                        "service": service,
                        "path": str(path),
                        "versions": [version.model_dump(mode="json") for version in versions],
                    }
                    for name, service, path, versions in rows
                ]
            }
        )
        return
    print_table(
        ("HOST", "SERVICE", "FILE", "VERSIONS", "GOOD SINCE (UTC)", "SHA-256"),
        [
            (
                name,
                service,
                str(path),
                str(len(versions)),
                when(versions[0].recorded_at) if versions else "-",
                versions[0].digest[:12] if versions else "-",
            )
            for name, service, path, versions in rows
        ],
        empty="no service of the inventory has configuration files",
    )


def _site(inventory: Path | None) -> Site:
    from watchkeeper.runtime.settings import load_settings
    from watchkeeper.runtime.site import load_site

    return load_site(load_settings(inventory=inventory))
