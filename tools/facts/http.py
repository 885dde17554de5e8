"""Whether an HTTP address answers as it should."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from watchkeeper.tools.addresses import checked_address
from watchkeeper.tools.fact import Arguments, Fact, Raw, Result
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HostSpec, HttpCheck
from watchkeeper.tools.local import endpoint, require_known_endpoint, require_local
from watchkeeper.tools.schema import known
from watchkeeper.tools.text import shown_url

if TYPE_CHECKING:
    import httpx

REDIRECTS = 3  # followed, within the same scheme, host and port
EXPECTED = 200  # of an address without a check in the inventory
TIMEOUT = 3.0  # seconds; likewise


class ConnectionProblem(StrEnum):
    """Why there was no answer; each is a phrase that people know."""

    REFUSED = "connection refused"
    TIMEOUT = "no answer in time"
    NAME = "name not resolved"
    TLS = "TLS handshake failed"
    CERTIFICATE = "TLS certificate not accepted"
    UNREACHABLE = "host or network unreachable"
    RESET = "connection reset"
    PROTOCOL = "answer is not HTTP"
    OTHER = "connection failed"


_BY_NUMBER = {
    errno.ECONNREFUSED: ConnectionProblem.REFUSED,
    errno.ETIMEDOUT: ConnectionProblem.TIMEOUT,
    errno.EHOSTUNREACH: ConnectionProblem.UNREACHABLE,
    errno.ENETUNREACH: ConnectionProblem.UNREACHABLE,
    errno.ECONNRESET: ConnectionProblem.RESET,
    errno.EPIPE: ConnectionProblem.RESET,
}


def problem_of(error: BaseException) -> ConnectionProblem:
    """Find out what an error of the network is about, from it and from what led to it."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None or current in seen:
            continue
        seen.append(current)
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
    for current in seen:
        if isinstance(current, ssl.SSLCertVerificationError):
            return ConnectionProblem.CERTIFICATE
        if isinstance(current, socket.gaierror):
            return ConnectionProblem.NAME
        if isinstance(current, ssl.SSLError):
            return ConnectionProblem.TLS
        if isinstance(current, TimeoutError):
            return ConnectionProblem.TIMEOUT
        if isinstance(current, OSError) and current.errno in _BY_NUMBER:
            return _BY_NUMBER[current.errno]
    return ConnectionProblem.OTHER


class HttpCheckArguments(Arguments):
    """The address, and what is expected of it where the inventory's check of it says nothing else.

    Attributes:
        url: The address.
        expect: Status while all is well; not for a model, which could declare a failure to be expected.
        timeout: Seconds after which the attempt is given up; likewise.
    """

    url: Annotated[str, known("url"), Field(max_length=2000), AfterValidator(checked_address)]
    expect: int | None = Field(default=None, ge=100, le=599, json_schema_extra={"internal": True})
    timeout: float | None = Field(default=None, gt=0, le=60, json_schema_extra={"internal": True})


class HttpCheckResult(Result):
    """What an address answered.

    The body and the headers of the answer are not kept: others write them, and a result without them can
    be shown to every agent.

    Attributes:
        status: Of the answer; None if there was none.
        expected: Status while all is well.
        ok: Whether it answered as expected.
        seconds: Until the status arrived, or until the attempt was given up.
        timeout: Seconds after which it is given up.
        problem: Why there was no answer.
        redirects: How many were followed.
        leads_elsewhere: Whether it answered with a redirect to another host, which is not followed.
    """

    status: int | None
    expected: int
    ok: bool
    seconds: float
    timeout: float
    problem: ConnectionProblem | None = None
    redirects: int = 0
    leads_elsewhere: bool = False


class HttpCheckFact(Fact[HttpCheckArguments, HttpCheckResult]):
    """Send one GET request and look at the status."""

    name = "http.check"
    summary = "whether an HTTP address answers"
    kinds = frozenset({FindingKind.CHECK_FAILING, FindingKind.CHECK_PASSING})
    arguments_type = HttpCheckArguments
    result_type = HttpCheckResult

    def collect(self, target: Target, arguments: HttpCheckArguments) -> Raw:
        """Send the request.

        Raises:
            CollectError: If the address is not one that may be asked.
        """
        require_local(target, self.name)
        _, host, port = endpoint(arguments.url)
        require_known_endpoint(target.spec, host, port)
        check = _check_of(target.spec, arguments.url)
        expected = arguments.expect or (check.expect if check else EXPECTED)
        timeout = arguments.timeout or (check.timeout if check else TIMEOUT)
        # A thread of its own, since the caller's may run an event loop already.
        with ThreadPoolExecutor(1) as executor:
            raw = executor.submit(asyncio.run, _get(arguments.url, expected, timeout)).result()
        return raw | {"expected": expected, "timeout": timeout}

    def interpret(self, raw: Raw, arguments: HttpCheckArguments) -> HttpCheckResult:  # noqa: ARG002 (all that counts was read)
        """Compare the status with the expected one."""
        return HttpCheckResult.model_validate(raw | {"ok": raw.get("status") == raw["expected"]})

    def findings(self, result: HttpCheckResult, arguments: HttpCheckArguments) -> Iterator[Finding]:
        """Say whether the check passes."""
        url = shown_url(arguments.url)
        if result.ok:
            yield Finding(
                kind=FindingKind.CHECK_PASSING,
                subject=url,
                text=f"GET {url} answered {result.status} in {result.seconds:.2f} seconds, as expected.",
            )
            return
        if result.status is None:
            text = f"GET {url} failed: {result.problem} (after {result.seconds:.2f} seconds)."
        elif result.leads_elsewhere:
            text = f"GET {url} answered {result.status}, a redirect to another host, not {result.expected}."
        else:
            text = f"GET {url} answered {result.status}, expected {result.expected}."
        yield Finding(kind=FindingKind.CHECK_FAILING, subject=url, text=text, severity=Severity.CRITICAL)

    def describe(self, arguments: HttpCheckArguments) -> str:
        """Say which address is asked."""
        return f"whether {shown_url(arguments.url)} answers"


def _check_of(spec: HostSpec, url: str) -> HttpCheck | None:
    for service in spec.services:
        for check in service.checks:
            if isinstance(check, HttpCheck) and check.url == url:
                return check
    return None


async def _get(url: str, expected: int, timeout: float) -> Raw:
    """Ask for an address and follow redirects to the same one, all within the timeout."""
    import httpx

    started = time.monotonic()
    raw: Raw = {"status": None, "redirects": 0, "leads_elsewhere": False, "problem": None}
    try:
        # The machine's own list of authorities, since a site's internal one is there and nowhere else.
        async with (
            asyncio.timeout(timeout),
            httpx.AsyncClient(
                verify=ssl.create_default_context(), trust_env=False, timeout=timeout, follow_redirects=False
            ) as client,
        ):
            request: httpx.Request | None = client.build_request("GET", url)
            followed = 0
            while request is not None:
                response = await client.send(request, stream=True)
                await response.aclose()
                raw |= {"status": response.status_code, "redirects": followed}
                following = response.next_request
                request = None
                if following is not None and response.status_code != expected:
                    same = _origin(following.url) == _origin(response.url)
                    raw["leads_elsewhere"] = not same
                    if same and followed < REDIRECTS:
                        request, followed = following, followed + 1
    except TimeoutError:
        raw |= {"status": None, "problem": ConnectionProblem.TIMEOUT}
    except httpx.TimeoutException:
        raw |= {"status": None, "problem": ConnectionProblem.TIMEOUT}
    except httpx.ProtocolError as error:
        found = problem_of(error)
        found = ConnectionProblem.PROTOCOL if found is ConnectionProblem.OTHER else found
        raw |= {"status": None, "problem": found}
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raw |= {"status": None, "problem": problem_of(error)}
    return raw | {"seconds": round(time.monotonic() - started, 3)}


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
