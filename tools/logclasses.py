"""Classes of log lines: a table of patterns that says what a line of trouble is about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from watchkeeper.tools.findings import FindingKind, Severity


class LogClass(StrEnum):
    """What a log line complains of; ``OTHER`` is an error of no other class."""

    NO_SPACE = "no-space"
    CONFIG = "config-error"
    CONNECTION = "connection"
    MEMORY = "memory"
    PERMISSION = "permission"
    PORT_TAKEN = "port-taken"
    CERTIFICATE = "certificate"
    OTHER = "other-error"


@dataclass(frozen=True, slots=True)
class ClassRule:
    """How one class is recognized and reported.

    Attributes:
        log_class: The class.
        pattern: What a line of it contains, in lower case.
        kind: Kind of the finding.
        says: What the lines say, continuing "17 log lines say that ...".
        severity: How far from normal such lines are.
    """

    log_class: LogClass
    pattern: re.Pattern[str]
    kind: FindingKind
    says: str
    severity: Severity


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


# The first rule that matches wins, so what names a cause stands before what may be its consequence: a
# configuration that cannot be read for want of permission is about the permission.
RULES: tuple[ClassRule, ...] = (
    ClassRule(
        LogClass.NO_SPACE,
        _any(
            r"no space left on device",
            r"\benospc\b",
            r"\b(?:disk|file ?system|volume|partition|device|tablespace) (?:is |was )?(?:almost |"
            r"nearly )?full\b",
            r"\bout of (?:disk|inodes)\b",
            r"\b(?:not enough|insufficient|no|low) (?:free )?(?:disk|storage) space\b",
            r"\bno (?:more )?(?:free )?(?:space|room) (?:left )?(?:on|in|for)\b",
            r"\b(?:disk )?quota exceeded\b",
            r"\berrno 28\b",
            r"flood stage disk watermark",
        ),
        FindingKind.LOG_NO_SPACE,
        "no space is left on the device",
        Severity.CRITICAL,
    ),
    ClassRule(
        LogClass.PORT_TAKEN,
        _any(
            r"\baddress (?:is )?already in use\b",
            r"\beaddrinuse\b",
            r"\berrno 98\b",
            r"\bport \d+ (?:is )?(?:already )?(?:in use|taken|allocated|occupied)\b",
            # Not every bind is one to a port: there are those of LDAP.
            r"\b(?:could not|cannot|can't|failed to|unable to) bind\b.{0,40}(?:\bport|address|socket|:\d+\b)",
            r"\bbind\(\).{0,60}\bfailed \(98\b",
        ),
        FindingKind.LOG_PORT_TAKEN,
        "a port is already in use by another process",
        Severity.CRITICAL,
    ),
    ClassRule(
        LogClass.CERTIFICATE,
        _any(
            r"\bcertificate\b.{0,60}\b(?:expired|not yet valid|verify failed|invalid|revoked|unknown|"
            r"mismatch)",
            r"\b(?:expired|invalid|revoked|untrusted|self.signed) (?:tls |ssl )?certificate\b",
            r"\bcertificate_verify_failed\b",
            r"\b(?:ssl|tls)[ _]?handshake\b.{0,40}\b(?:fail|error)",
            r"\bunable to get (?:local )?issuer certificate\b",
            r"\bx509:",
            r"\bsslv3_alert|\btlsv1_alert|\bbad_certificate\b",
        ),
        FindingKind.LOG_CERTIFICATE,
        "a TLS certificate is not accepted",
        Severity.WARNING,
    ),
    ClassRule(
        LogClass.MEMORY,
        _any(
            r"\bout of memory\b",
            r"\boom[- ]?kill",
            r"\bcannot allocate memory\b",
            r"\benomem\b",
            r"\berrno 12\b",
            r"\bmemoryerror\b",
            r"\boutofmemoryerror\b",
            r"\bstd::bad_alloc\b",
            r"\bjava heap space\b",
            r"\bmemory (?:limit )?(?:exhausted|exceeded)\b",
            r"\b(?:failed|unable|cannot) to (?:m|re)?alloc(?:ate)?\b.{0,30}\b(?:memory|bytes)\b",
            r"\bnot enough memory\b|\binsufficient memory\b",
        ),
        FindingKind.LOG_MEMORY,
        "memory ran out",
        Severity.CRITICAL,
    ),
    ClassRule(
        LogClass.PERMISSION,
        _any(
            r"\bpermission denied\b",
            r"\beacces\b|\beperm\b",
            r"\boperation not permitted\b",
            r"\berrno 13\b",
            r"\baccess (?:is |was )?denied\b",
            r"\bpermissionerror\b",
            r"\bread-only file ?system\b",
            r"\bapparmor=\"denied\"|\bavc: +denied\b",
        ),
        FindingKind.LOG_PERMISSION,
        "access was denied",
        Severity.WARNING,
    ),
    ClassRule(
        LogClass.CONFIG,
        _any(
            r"\b(?:invalid|bad|broken|malformed|unknown|unrecognized|unsupported|illegal|missing|wrong)\b"
            r".{0,40}\b(?:config(?:uration)?|setting|directive|option|parameter|key)\b(?! exchange)",
            r"\b(?:config(?:uration)?|settings?)\b.{0,60}"
            r"\b(?:error|invalid|malformed|failed|missing|not found|incorrect|is not valid|cannot be|"
            r"rejected|broken)\b",
            r"\b(?:error|fail\w*|cannot|could not|unable)\b.{0,30}"
            r"\b(?:pars|read|load|apply|reload)\w*\b.{0,30}\bconfig(?:uration)?\b",
            r"\b(?:parse|parsing|syntax|decode) error\b|\bsyntaxerror\b|\bparsererror\b",
            r"\b(?:yaml|toml|json|configparser|ini)\b[\w.]*error\b",
            r"\bjsondecodeerror\b|\btomldecodeerror\b|\bmissingsectionheadererror\b|\bnooptionerror\b",
            r"\binvalid value\b|\bnot a valid (?:value|number|integer|port|url|path|boolean)\b",
            r"\b(?:must be|expected) (?:a|an|one of|between|at least|at most|greater|less|positive)\b",
            r"\b(?:environment variable|required (?:setting|option|key|value|field))\b.{0,40}"
            r"\b(?:not set|missing|undefined|unset|empty)\b",
            r"\[emerg\]",
        ),
        FindingKind.LOG_CONFIG_ERROR,
        "a configuration is wrong",
        Severity.CRITICAL,
    ),
    ClassRule(
        LogClass.CONNECTION,
        _any(
            r"\bconnection (?:was )?(?:refused|reset|timed out|aborted|closed unexpectedly|failed|lost|"
            r"error)\b",
            r"\beconnrefused\b|\beconnreset\b|\betimedout\b|\behostunreach\b|\benetunreach\b",
            r"\berrno (?:104|110|111|113)\b",
            r"\b(?:could not|cannot|can't|failed to|unable to) connect\b",
            r"\b(?:connect|connection)\b.{0,40}\bfailed\b",
            r"\bno route to host\b|\b(?:network|host) is (?:unreachable|down)\b",
            r"\bname or service not known\b|\btemporary failure in name resolution\b|\bno such host\b",
            r"\bbroken pipe\b|\bserver closed the connection\b|\bconnection pool (?:is )?exhausted\b",
            r"\btoo many (?:clients|connections)\b|\bno live upstreams\b",
            r"\bupstream\b.{0,60}\b(?:timed out|unavailable|prematurely closed)\b",
            r"\b(?:read|connect|request|socket|gateway) time(?:d )?[- ]?out\b|\bi/o timeout\b|"
            r"\bdeadline exceeded\b",
        ),
        FindingKind.LOG_CONNECTION,
        "a connection to another service failed",
        Severity.WARNING,
    ),
)

OTHER_KIND = FindingKind.LOG_ERRORS
OTHER_SAYS = "there was some other error"
OTHER_SEVERITY = Severity.WARNING
# A pattern looks at no more of a line than this: what matters stands early, and a line may be megabytes.
_LOOKED_AT = 1000


def classify(line: str) -> LogClass | None:
    """Return the class of a line of trouble by what it says, or None if no rule matches.

    Whether the line is an error at all is not decided here.
    """
    lowered = line[:_LOOKED_AT].lower()
    for rule in RULES:
        if rule.pattern.search(lowered):
            return rule.log_class
    return None
