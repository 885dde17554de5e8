"""The hosts that may be touched, their labels and services: read from YAML, checked at load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from watchkeeper.tools.addresses import HttpAddress
from watchkeeper.tools.documents import DocumentError, read_document
from watchkeeper.tools.errors import InventoryError, UnknownHostError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HttpCheck(_Strict):
    """An HTTP address that answers with an expected status while all is well."""

    kind: Literal["http"] = "http"
    url: HttpAddress
    expect: int = 200
    timeout: float = Field(default=3.0, gt=0, le=60, description="seconds")


class TcpCheck(_Strict):
    """A TCP port that accepts connections while all is well."""

    kind: Literal["tcp"]
    host: str
    port: int = Field(ge=1, le=65535)
    timeout: float = Field(default=3.0, gt=0, le=60, description="seconds")


Check = Annotated[HttpCheck | TcpCheck, Field(discriminator="kind")]


class Supervisord(_Strict):
    """A service that supervisord keeps running.

    Attributes:
        socket: Path of supervisord's UNIX socket.
        program: Name of the program in supervisord's configuration (default: the service's name).
    """

    kind: Literal["supervisord"]
    socket: Path
    program: str | None = None


class Systemd(_Strict):
    """A service that systemd keeps running; ``unit`` defaults to the service's name."""

    kind: Literal["systemd"]
    unit: str | None = None


class Registered(_Strict):
    """A predictor of the registry: the version that is its champion answers (``predictors promote``).

    Attributes:
        registry: Its name.
    """

    registry: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


def _place(value: object) -> str:
    return "registry" if isinstance(value, dict | Registered) else "folder"


PredictorPlace = Annotated[
    Annotated[Path, Tag("folder")] | Annotated[Registered, Tag("registry")], Discriminator(_place)
]
"""Where a predictor is: a path is its folder, ``{registry: NAME}`` a name in the registry."""


class Metric(_Strict):
    """A series that is written to a CSV file, and the predictor that knows it.

    Attributes:
        about: What is measured, in a few words, e.g. ``processor of the shop`` or, of a disk, ``/data``.
        path: The file, with columns ``timestamp`` and ``value``.
        kind: What is asked of the predictor: whether the last points stand out, or when the disk is full.
        predictor: Folder of the predictor, or ``{registry: NAME}``: whichever version answers at the time.
    """

    about: Annotated[str, Field(min_length=1, max_length=100)]
    path: Path
    kind: Literal["anomaly", "disk-forecast"]
    predictor: PredictorPlace


class Service(_Strict):
    """A service of a host.

    Attributes:
        name: Its name, unique on the host.
        supervisor: What keeps it running.
        logs: Its log files.
        config: Its configuration files.
        data: Its data folders.
        checks: What answers while it is well.
        metrics: Series that are measured of it.
        depends_on: Other services of the host that it needs.
        stop_seconds: Time that it is given to end. By default a little more than systemd gives one (90 s),
            which then kills it; supervisord does after its ``stopwaitsecs`` (10 s).
    """

    name: Name
    supervisor: Annotated[Supervisord | Systemd, Field(discriminator="kind")]
    logs: tuple[Path, ...] = ()
    config: tuple[Path, ...] = ()
    data: tuple[Path, ...] = ()
    checks: tuple[Check, ...] = ()
    metrics: tuple[Metric, ...] = ()
    depends_on: tuple[Name, ...] = ()
    stop_seconds: float = Field(default=100.0, gt=0, le=3600)


class KnownJob(_Strict):
    """A training job that agents may submit.

    Attributes:
        name: Its name, unique on the host.
        spec: File that says what is to be done (see ``watchkeeper jobs``).
    """

    name: Name
    spec: Path


class HostSpec(_Strict):
    """A machine, its labels and its services.

    Attributes:
        name: Its name, unique in the inventory.
        connection: How it is reached.
        labels: What policy rules may ask for, e.g. ``environment``, ``role``, ``criticality``.
        services: What runs on it.
        jobs: Training jobs that agents may submit on it.
    """

    name: Name
    connection: Literal["local"] = "local"
    labels: dict[str, str] = Field(default_factory=dict)
    services: tuple[Service, ...] = ()
    jobs: tuple[KnownJob, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> HostSpec:
        names = [service.name for service in self.services]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"service {name!r} is defined twice on host {self.name!r}")
        for service in self.services:
            for needed in service.depends_on:
                if needed not in names:
                    raise ValueError(
                        f"service {service.name!r} depends on {needed!r}, which is not on host {self.name!r}"
                    )
        known = [job.name for job in self.jobs]
        for name in known:
            if known.count(name) > 1:
                raise ValueError(f"job {name!r} is defined twice on host {self.name!r}")
        return self

    def service(self, name: str) -> Service:
        """Return the service of that name.

        Raises:
            InventoryError: If the host has no such service.
        """
        for service in self.services:
            if service.name == name:
                return service
        known = ", ".join(s.name for s in self.services) or "none"
        raise InventoryError(f"service {name!r} is not on host {self.name!r} (it has: {known})")


class Inventory(_Strict):
    """All hosts that Watchkeeper may look at; what is not here cannot be touched."""

    hosts: tuple[HostSpec, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Inventory:
        names = [host.name for host in self.hosts]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"host {name!r} is defined twice")
        return self

    @classmethod
    def load(cls, path: Path) -> Inventory:
        """Read an inventory from a YAML file.

        Raises:
            InventoryError: With file, line and value, if it cannot be read or does not describe an inventory.
        """
        try:
            document = read_document(path, "inventory")
        except DocumentError as error:
            raise InventoryError(str(error)) from error
        try:
            return cls.model_validate(document.data)
        except ValidationError as error:
            raise InventoryError(f"inventory {document.explain(error)}") from error

    def __iter__(self) -> Iterator[HostSpec]:  # type: ignore[override]
        return iter(self.hosts)

    def host(self, name: str) -> HostSpec:
        """Return the host of that name.

        Raises:
            UnknownHostError: If it is not in the inventory.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(h.name for h in self.hosts) or "none"
        raise UnknownHostError(f"host {name!r} is not in the inventory (it has: {known})")
