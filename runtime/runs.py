"""With what a run was started, so that it can be resumed without saying it again."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from watchkeeper.runtime.errors import ConfigurationError, StoreError
from watchkeeper.runtime.settings import Settings
from watchkeeper.tools.inventory import Inventory


class RunFile(BaseModel):
    """What `watchkeeper run` was given.

    Attributes:
        inventory: The inventory file.
        policy: The policy file; None for the one that comes with Watchkeeper.
        model: Id of the model.
        quantization: How its weights are held.
        solo: Whether one person alone may approve what they asked for.
        observe_only: Whether nothing may be applied: what was begun so stays so.
        escalation: The escalation rules; None where whoever is at the terminal is called.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inventory: Path
    policy: Path | None
    model: str
    quantization: str
    solo: bool
    observe_only: bool = False
    escalation: Path | None = None

    @classmethod
    def of(cls, settings: Settings, *, inventory: Path | None = None) -> RunFile:
        """Keep what matters of the settings of a run."""
        return cls(
            inventory=(inventory or settings.inventory_path).absolute(),
            policy=settings.policy_path.absolute() if settings.policy_path else None,
            model=settings.model,
            quantization=settings.quantization,
            solo=settings.solo,
            observe_only=settings.observe_only,
            escalation=settings.escalation_path.absolute() if settings.escalation_path else None,
        )

    def options(self) -> dict[str, Any]:
        """The settings that it stands for.

        A run that only observed goes on so; one that did not is no leave to act where the configuration
        says by now that nothing is applied.
        """
        values = self.model_dump()
        if not self.observe_only:
            del values["observe_only"]
        return values

    def write(self, home: Path, incident_id: str) -> None:
        """Keep it for an incident; the file is whole or not there.

        Raises:
            StoreError: If it cannot be written.
        """
        path = _path(home, incident_id)
        temporary = path.with_suffix(".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary.write_text(self.model_dump_json(indent=2), encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise StoreError(
                f"run file {str(path)!r} cannot be written: {error.strerror}; make room there or mend its "
                "permissions, and raise the alert again: it goes on with the same incident"
            ) from error

    @classmethod
    def read(cls, home: Path, incident_id: str) -> RunFile | None:
        """Return what an incident's run was started with; None if it was not started by a command.

        Raises:
            ConfigurationError: If the file is there and not usable.
        """
        path = _path(home, incident_id)
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigurationError(
                f"run file {str(path)!r} is not usable ({reason}); remove it and name the inventory again"
            ) from error

    @staticmethod
    def write_inventory(path: Path, inventory: Inventory) -> None:
        """Write an inventory as YAML."""
        path.write_text(yaml.safe_dump(inventory.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def _path(home: Path, incident_id: str) -> Path:
    return home / "runs" / f"{incident_id}.json"
