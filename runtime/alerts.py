"""Alerts: signals that something may be wrong, with the condition that tells whether it still is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from watchkeeper.runtime.errors import ConfigurationError
from watchkeeper.tools.documents import Document, DocumentError, read_document
from watchkeeper.tools.errors import ArgumentError, InventoryError, UnknownHostError, UnknownToolError
from watchkeeper.tools.evidence import digest_json
from watchkeeper.tools.findings import FindingKind, Severity
from watchkeeper.tools.inventory import Check, HostSpec, HttpCheck, Inventory, Name
from watchkeeper.tools.redaction import redact, redact_text
from watchkeeper.tools.registry import Registry, parse

_CHECK: TypeAdapter[Check] = TypeAdapter(Check)
_CHECK_FACTS = {"http": "http.check", "tcp": "tcp.check"}
_TITLE = 300
_DESCRIPTION = 20_000
_EXPECTED: int = HttpCheck.model_fields["expect"].default


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Condition(_Strict):
    """What is wrong, as a fact that anyone can read again.

    A check may be written in its short form, ``{kind: http, url: http://127.0.0.1:8080/, expect: 200}``.

    Attributes:
        fact: Name of the fact.
        arguments: Its arguments.
        firing: Kinds of findings, any of which says that the alert still fires.
        expect: Status that whoever raised an HTTP alert expects. What a check expects is the inventory's to
            say, so this must agree with it (see `Alert.check`).
    """

    fact: str = Field(min_length=1)
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    firing: tuple[str, ...] = Field(default=(FindingKind.CHECK_FAILING.value,), min_length=1)
    expect: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_check(cls, value: Any) -> Any:
        if isinstance(value, dict) and "kind" in value and "fact" not in value:
            if "timeout" in value:
                raise ValueError("how long to wait for an answer is set by the check in the inventory")
            check = _CHECK.validate_python(value)
            return {
                "fact": _CHECK_FACTS[check.kind],
                "arguments": check.model_dump(mode="json", include={"url", "host", "port"}),
                "firing": (FindingKind.CHECK_FAILING.value,),
                "expect": value.get("expect"),
            }
        return value


_RESERVED = "watchkeeper/"
"""Labels that begin so are Watchkeeper's own."""

DEMO_LABEL = f"{_RESERVED}demo"
"""Label of the alerts that the demo raises about faults of its own."""


class Alert(_Strict):
    """One signal that something may be wrong.

    Attributes:
        title: What is wrong, in a few words.
        host: Where; a host of the inventory.
        service: Which of its services, if it is about one.
        severity: How bad, as whoever raised it sees it.
        condition: What tells whether it still fires.
        description: More text; anyone may have written it, so it is never trusted.
        labels: For people and filters.
    """

    title: str = Field(min_length=1, max_length=_TITLE)
    host: Name
    service: Name | None = None
    severity: Severity = Severity.CRITICAL
    condition: Condition
    description: str = Field(default="", max_length=_DESCRIPTION)
    labels: dict[str, str] = Field(default_factory=dict)

    def redacted(self) -> Alert:
        """Return it without the secrets that its title, description and labels hold.

        The condition stays as it is, since it must be read: what is secret in an address belongs into the
        service's own configuration.
        """
        labels = redact(dict(self.labels))
        kept = {str(name): str(value) for name, value in labels.items()} if isinstance(labels, dict) else {}
        return self.model_copy(
            update={
                "title": redact_text(self.title)[:_TITLE],
                "description": redact_text(self.description)[:_DESCRIPTION],
                "labels": kept,
            }
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of host, service and condition: alerts that share it are one incident."""
        return digest_json(
            {
                "host": self.host,
                "service": self.service,
                "condition": self.condition.model_dump(mode="json", exclude={"expect"}),
            }
        )

    def check(self, inventory: Inventory, registry: Registry, *, document: Document | None = None) -> None:
        """Check that the alert speaks of what is there, and that its condition can be read.

        Args:
            inventory: The hosts.
            registry: The facts.
            document: The file it was read from, for messages.

        Raises:
            ConfigurationError: If its host, service or fact is unknown, the fact's arguments are not
                valid or it never makes the findings named, or it expects another answer than the
                inventory does.
        """
        try:
            host = inventory.host(self.host)
            if self.service is not None:
                host.service(self.service)
            fact = registry.fact(self.condition.fact)
            parse(fact, dict(self.condition.arguments))
        except ArgumentError as error:
            if document is None:
                raise ConfigurationError(f"alert {self.title!r:.80}: {error}") from error
            written = "arguments" in document.data["condition"]
            place = ("condition", *(("arguments",) if written else ()), *error.place)
            line = document.where(place).rpartition(": ")[0]
            raise ConfigurationError(f"alert {line}: {error}") from error
        except (InventoryError, UnknownHostError, UnknownToolError) as error:
            raise ConfigurationError(f"alert {self.title!r:.80}: {error}") from error
        for kind in self.condition.firing:
            # Otherwise it would be closed as one that fires no more, whatever is wrong.
            if fact.kinds is not None and kind not in fact.kinds:
                raise ConfigurationError(
                    f"alert {self.title!r:.80}: condition.firing: {fact.name} never finds {kind!r:.80}, so "
                    f"it could not fire (it finds: {', '.join(sorted(fact.kinds))})"
                )
        if self.condition.expect is None:
            return
        url = str(self.condition.arguments.get("url"))
        expected = expected_status(host, url)
        if self.condition.expect != expected:
            raise ConfigurationError(
                f"alert {self.title!r:.80}: it expects {self.condition.expect} from {url!r}, the inventory "
                f"expects {expected}: change the check there"
            )

    @classmethod
    def load(cls, path: Path) -> Alert:
        """Read an alert from a YAML file.

        Raises:
            ConfigurationError: If the file is missing, is not YAML, or does not describe an alert.
        """
        return cls.read(path)[0]

    @classmethod
    def read(cls, path: Path) -> tuple[Alert, Document]:
        """Read an alert from a YAML file, with the file: it knows the line of what `check` finds wrong.

        Raises:
            ConfigurationError: If the file is missing, is not YAML, or does not describe an alert.
        """
        try:
            document = read_document(path, "alert")
        except DocumentError as error:
            raise ConfigurationError(str(error)) from error
        _check_short_form(document)
        try:
            alert = cls.model_validate(document.data)
        except ValidationError as error:
            raise ConfigurationError(f"alert {document.explain(error)}") from error
        for name in alert.labels:
            if name.startswith(_RESERVED):
                raise ConfigurationError(
                    f"alert {path}: label {name!r} is one of Watchkeeper's own: choose a name that does not "
                    f"begin with {_RESERVED!r}"
                )
        return alert, document


def _check_short_form(document: Document) -> None:
    """Check a condition in its short form by itself, so that the line of a wrong value is known.

    Raises:
        ConfigurationError: If it is not a check.
    """
    written = document.data.get("condition") if isinstance(document.data, dict) else None
    if not isinstance(written, dict) or "kind" not in written or "fact" in written:
        return
    try:
        _CHECK.validate_python(written)
    except ValidationError as error:
        raise ConfigurationError(f"alert {document.explain(error, within=('condition',))}") from error


def expected_status(host: HostSpec, url: str) -> int:
    """Return the status that a host's checks expect from an address (by default that of a new check)."""
    checks = [check for service in host.services for check in service.checks]
    return next((c.expect for c in checks if isinstance(c, HttpCheck) and c.url == url), _EXPECTED)
