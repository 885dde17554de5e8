"""Settings: read from a YAML file and the environment, checked at load."""

from __future__ import annotations

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from watchkeeper.models.home import home_folder
from watchkeeper.models.shipped_adapters import DEFAULT_ADAPTER, shipped_adapters
from watchkeeper.runtime.errors import ConfigurationError
from watchkeeper.runtime.limits import MAX_ACTIONS, Limits
from watchkeeper.tools.documents import Document, DocumentError, read_document
from watchkeeper.tools.inventory import PredictorPlace, Registered
from watchkeeper.tools.training.spec import parse_size

PREFIX = "WATCHKEEPER_"
FILE = "config.yaml"
STORE = "watchkeeper.db"
"""File of the database in the home, where no other store is set."""

_DAY = 86_400.0


class Settings(BaseSettings):
    """What an operator may set; see ``load_settings``.

    Attributes:
        home: Folder of all state.
        store: Where the state of incidents is kept: a file (SQLite) or the URL of a PostgreSQL database
            (default: ``watchkeeper.db`` in the home). It may hold a password, so it is never shown.
        model: Catalog id of the language model.
        quantization: How its weights are held.
        adapter: Name of the adapter with which the diagnostician is asked; the model as it is where empty. By
            default that which comes with Watchkeeper for the model, where there is one.
        inventory: The hosts that may be touched (default: ``inventory.yaml`` in the home).
        policy: The rules (default: ``policy.yaml`` in the home, else the one that comes along).
        escalation: Who is called (default: ``escalation.yaml`` in the home, else whoever is at the terminal).
        tools: Facts and actions besides the built-in ones and those of installed packages, as
            ``module:function``; see `watchkeeper.tools.plugins`.
        log_predictor: Predictor of log lines, its folder or ``{registry: NAME}``; with one, agents may have
            logs classified.
        agents: Agents that take the place of the built-in ones of their roles, likewise.
        min_confidence: Probability under which an agent's answer is not followed.
        max_actions: Actions that may be applied for one incident.
        max_facts: Facts that may be read for one incident.
        max_tokens: Tokens that may be generated for one incident.
        max_seconds: Time to work on one incident, without waiting for people.
        settle_seconds: Time that a remedy is given to make the alert's condition clear.
        reading_pause_seconds: Time between readings of a condition, several of which must pass in a row.
        approval_ttl_seconds: Time to answer an approval, and again to use it.
        unclaimed_seconds: Time after which people are called about an incident whose host no worker knows.
        outage_seconds: Time that a submitted incident waits for a model or a store that cannot be reached,
            before it is handed to people.
        solo: Whether one person alone may approve what they asked for (tier 1 only; recorded).
        identity_header: Header in which a proxy tells a server who somebody is; empty for none.
        identity_proxies: Addresses or networks of the proxies that are believed.
        observe_only: Whether nothing is ever applied and nobody asked: reports say what would have been done.
        limits: Actions in a time, failures and repeats that no policy and no approval goes beyond.
        cpu_watts: Power drawn while a model computes, to estimate energy.
        training_memory: Bytes that training jobs may hold together on this machine (default: four fifths of
            its memory).
        ray_address: Address of a Ray cluster's dashboard, for jobs that are to run there; empty for none.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    home: Path = Field(default_factory=home_folder)
    store: SecretStr | None = Field(default=None, min_length=1)
    model: str = Field(default="qwen2.5-coder-0.5b-instruct", min_length=1)
    quantization: Literal["auto", "nf4", "int8", "none"] = "auto"
    adapter: str | None = Field(default=None, max_length=200)
    inventory: Path | None = None
    policy: Path | None = None
    escalation: Path | None = None
    tools: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    log_predictor: PredictorPlace | None = None
    min_confidence: float = Field(default=0.10, ge=0, le=1)
    max_actions: int = Field(default=MAX_ACTIONS, ge=0, le=1000)
    max_facts: int = Field(default=24, ge=1, le=10_000)
    max_tokens: int = Field(default=20_000, ge=1)
    max_seconds: float = Field(default=900, gt=0, allow_inf_nan=False)
    settle_seconds: float = Field(default=12, ge=0, le=_DAY)
    reading_pause_seconds: float = Field(default=0.7, ge=0, le=_DAY)
    approval_ttl_seconds: float = Field(default=3600, gt=0, le=366 * _DAY)
    unclaimed_seconds: float = Field(default=300, ge=0, le=366 * _DAY)
    outage_seconds: float = Field(default=600, ge=0, le=366 * _DAY)
    solo: bool = False
    identity_header: str = Field(default="", pattern=r"^[A-Za-z0-9-]*$")
    identity_proxies: tuple[str, ...] = ()
    observe_only: bool = False
    limits: Limits = Limits()
    cpu_watts: float = Field(default=65, gt=0, allow_inf_nan=False)
    training_memory: Annotated[int, BeforeValidator(parse_size)] | None = Field(default=None, ge=10**7)
    ray_address: str = Field(default="", pattern=r"^(https?://[^\s]+)?$")

    @field_validator("identity_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            ip_network(proxy, strict=False)
        return value

    @field_validator("home", "inventory", "policy", "escalation", "log_predictor")
    @classmethod
    def _expand(cls, value: Path | Registered | None) -> Path | Registered | None:
        return value.expanduser() if isinstance(value, Path) else value

    @property
    def adapters(self) -> tuple[str, ...]:
        """The adapters that agents are asked with; that which comes with the model where none is named."""
        if self.adapter is not None:
            return (self.adapter,) if self.adapter else ()
        return (DEFAULT_ADAPTER,) if DEFAULT_ADAPTER in shipped_adapters(self.model) else ()

    @property
    def inventory_path(self) -> Path:
        """The inventory file."""
        return self.inventory or self.home / "inventory.yaml"

    @property
    def policy_path(self) -> Path | None:
        """The policy file; None for the policy that comes with Watchkeeper."""
        if self.policy is not None:
            return self.policy
        own = self.home / "policy.yaml"
        return own if own.exists() else None

    @property
    def escalation_path(self) -> Path | None:
        """The escalation rules; None where whoever is at the terminal is called."""
        if self.escalation is not None:
            return self.escalation
        own = self.home / "escalation.yaml"
        return own if own.exists() else None

    @property
    def store_place(self) -> Path | str:
        """The database: a file, or a URL, which may hold a password."""
        if self.store is None:
            return self.home / STORE
        place = self.store.get_secret_value()
        return place if "://" in place else Path(place).expanduser()


def load_settings(path: Path | None = None, **given: Any) -> Settings:
    """Read the settings: what is given beats the environment, which beats the file.

    Args:
        path: The file; default: ``WATCHKEEPER_CONFIG``, else ``config.yaml`` in the home where there is one.
            Relative paths in it are relative to it.
        **given: Settings that beat all others (options of a command); None means not given.

    Raises:
        ConfigurationError: With the value and the place, if one is not right.
    """
    given = {name: value for name, value in given.items() if value is not None}
    home = Path(given["home"]).expanduser() if "home" in given else home_folder()
    named = path or (Path(os.environ[f"{PREFIX}CONFIG"]) if os.environ.get(f"{PREFIX}CONFIG") else None)
    file = named or (home / FILE if (home / FILE).exists() else None)
    document = Document(home / FILE, {}, {})
    if file is not None:
        try:
            document = read_document(file.expanduser(), "configuration")
        except DocumentError as error:
            raise ConfigurationError(str(error)) from error
        if not isinstance(document.data, dict):
            raise ConfigurationError(f"configuration {str(file)!r} must hold names and values")
    data = dict(document.data)
    for name in ("home", "inventory", "policy", "escalation", "log_predictor"):
        if isinstance(data.get(name), str):
            data[name] = document.path.parent / Path(data[name]).expanduser()
    if isinstance(data.get("store"), str) and data["store"] and "://" not in data["store"]:
        data["store"] = str(document.path.parent / Path(data["store"]).expanduser())
    try:
        told = dict(EnvSettingsSource(Settings)())
        if told.get("home") == "":
            told["home"] = data.get("home", home)  # an empty variable is none, as everywhere else
        return Settings(**{**data, **told, **given})
    except ValidationError as error:
        raise ConfigurationError(_explain(error, document, given)) from error
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        variable = f"{PREFIX}{field[1].upper()}" if field else f"{PREFIX}..."
        raise ConfigurationError(
            f"environment variable {variable}: a list or table is expected as JSON, such as "
            f'\'["one", "two"]\' (got {os.environ.get(variable, "")!r:.80})'
        ) from error


def _explain(error: ValidationError, document: Document, given: dict[str, Any]) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    variable = f"{PREFIX}{name.upper()}"
    if name not in given and variable in os.environ:
        return f"environment variable {variable}: {first['msg']} (got {os.environ[variable]!r:.80})"
    if name not in given and (name,) in document.lines:
        return f"configuration {document.explain(error)}"
    return f"setting {name!r}: {first['msg']} (got {first['input']!r:.80})"
