"""When a TLS certificate runs out."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from watchkeeper.tools.errors import CollectError
from watchkeeper.tools.fact import Arguments, Fact, Raw, Result
from watchkeeper.tools.facts.http import problem_of
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HostSpec, HttpCheck
from watchkeeper.tools.local import endpoint, open_regular, reason, require_known_endpoint, require_local
from watchkeeper.tools.schema import known
from watchkeeper.tools.text import counted, shown_path, span_text

WARNING_DAYS = 21  # less is a warning: time to renew, three weeks before people notice
TIMEOUT = 5.0  # seconds for the connection and the handshake
FILE_LIMIT = 1024 * 1024  # bytes: a larger file is no certificate


class CertificateArguments(Arguments):
    """A port that speaks TLS from the first byte, or a PEM or DER file; one of the two is given."""

    host: str | None = Field(default=None, min_length=1, max_length=253, description="name or address")
    port: int = Field(default=443, ge=1, le=65535)
    path: Annotated[str | None, known("path")] = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.host is None) == (self.path is None):
            raise ValueError("give either a host and port or a path")
        return self


class _Certificate(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    not_before: datetime
    not_after: datetime
    sha256: str


class _CertificateRaw(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    now: datetime
    certificates: tuple[_Certificate, ...] = Field(min_length=1)


class CertificateResult(Result):
    """The certificate that runs out first.

    Its names are left out, since whoever made it chose them.

    Attributes:
        not_before: Start of its validity.
        not_after: End of its validity.
        now: When it was read.
        days_left: Until the end, negative after it.
        certificates: How many were read; of a port only the server's own is seen.
        sha256: Fingerprint.
    """

    not_before: datetime
    not_after: datetime
    now: datetime
    days_left: float
    certificates: int
    sha256: str


class CertificateExpiry(Fact[CertificateArguments, CertificateResult]):
    """Read the certificate of a port, or of a file, and look when it runs out."""

    name = "certificate.expiry"
    summary = "when a TLS certificate expires"
    kinds = frozenset({FindingKind.CERTIFICATE_EXPIRING})
    arguments_type = CertificateArguments
    result_type = CertificateResult

    def candidates(self, spec: HostSpec) -> Iterable[dict[str, Any]]:
        """Look at the port of each HTTPS check."""
        found: dict[tuple[str, int], None] = {}
        for service in spec.services:
            for check in service.checks:
                if isinstance(check, HttpCheck) and check.url.startswith("https://"):
                    found[endpoint(check.url)[1:]] = None
        return [{"host": host, "port": port} for host, port in found]

    def collect(self, target: Target, arguments: CertificateArguments) -> Raw:
        """Read the certificates.

        Raises:
            CollectError: If there is no certificate to be read.
        """
        require_local(target, self.name)
        if arguments.host is not None:
            require_known_endpoint(target.spec, arguments.host, arguments.port)
            data = _from_port(arguments.host, arguments.port)
        else:
            data = _from_file(Path(arguments.path or ""))
        return {"now": datetime.now(UTC).isoformat(), "certificates": _describe(data, _subject(arguments))}

    def interpret(self, raw: Raw, arguments: CertificateArguments) -> CertificateResult:  # noqa: ARG002 (all that counts was read)
        """Take the one that runs out first."""
        read = _CertificateRaw.model_validate(raw)
        first = min(read.certificates, key=lambda item: item.not_after)
        return CertificateResult(
            not_before=first.not_before,
            not_after=first.not_after,
            now=read.now,
            days_left=round((first.not_after - read.now).total_seconds() / 86400, 2),
            certificates=len(read.certificates),
            sha256=first.sha256,
        )

    def findings(self, result: CertificateResult, arguments: CertificateArguments) -> Iterator[Finding]:
        """Say when it is about to run out, has, or is not valid yet."""
        subject = _subject(arguments)
        span = span_text(abs((result.not_after - result.now).total_seconds()))
        severity = Severity.CRITICAL
        if result.now > result.not_after:
            text = f"The TLS certificate of {subject} expired {span} ago."
        elif result.now < result.not_before:
            text = f"The TLS certificate of {subject} is not valid yet."
        elif result.days_left < WARNING_DAYS:
            severity = Severity.WARNING
            text = f"The TLS certificate of {subject} expires in {span}."
        else:
            return
        yield Finding(kind=FindingKind.CERTIFICATE_EXPIRING, subject=subject, text=text, severity=severity)

    def describe(self, arguments: CertificateArguments) -> str:
        """Say whose certificate."""
        return f"when the TLS certificate of {_subject(arguments)} expires"


def _subject(arguments: CertificateArguments) -> str:
    if arguments.host is not None:
        return f"{shown_path(arguments.host)}:{arguments.port}"
    return shown_path(arguments.path or "")


def _from_port(host: str, port: int) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # An expired certificate is what this fact is for, so nothing is verified; nothing is sent either.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            data = secured.getpeercert(binary_form=True)
    except (OSError, ValueError) as error:
        raise CollectError(f"certificate of {host}:{port} cannot be read: {problem_of(error)}") from error
    if not data:
        raise CollectError(f"certificate of {host}:{port} cannot be read: the server sent none")
    return data


def _from_file(path: Path) -> bytes:
    try:
        with os.fdopen(open_regular(Path(os.path.realpath(path))), "rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise CollectError(f"certificate {str(path)!r} cannot be read: {why}") from error
    if len(data) > FILE_LIMIT:
        raise CollectError(f"{str(path)!r} is larger than {counted(FILE_LIMIT, 'byte')}: not a certificate")
    return data


def _describe(data: bytes, subject: str) -> list[Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        if b"-----BEGIN" in data:
            certificates = x509.load_pem_x509_certificates(data)
        else:
            certificates = [x509.load_der_x509_certificate(data)]
        return [
            {
                "not_before": certificate.not_valid_before_utc.isoformat(),
                "not_after": certificate.not_valid_after_utc.isoformat(),
                "sha256": certificate.fingerprint(SHA256()).hex(),
            }
            for certificate in certificates
        ]
    except ValueError as error:
        raise CollectError(f"{subject} holds no certificate in PEM or DER form") from error
