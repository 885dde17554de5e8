"""Secrets are taken out of what is kept: those that are known, and others by their names or their look."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable

from pydantic import JsonValue

REDACTED = "[redacted]"
SHORTEST = 6
"""Characters of a known value at least: shorter ones stand in too many words."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_ENDS = (
    "accesskey",
    "apikey",
    "authorization",
    "cookie",
    "cookies",
    "credential",
    "credentials",
    "dbpass",
    "keypass",
    "masterauth",
    "passphrase",
    "passwd",
    "password",
    "passwords",
    "privatekey",
    "requirepass",
    "secret",
    "secretkey",
    "secrets",
    "storepass",
    "token",
)
"""How words for secrets end: also ``PGPASSWORD`` and ``authtoken``."""

_KEY_OWNERS = frozenset({"account", "api", "private", "secret", "access", "signing", "encryption"})
_PASSED_ON = frozenset({"proxy", "fastcgi", "uwsgi", "scgi", "grpc", "memcached"})
"""What nginx passes on: ``proxy_pass`` is an address."""

_NAMED = re.compile(
    r"(?<![\w.-])([\w.-]++)(\\?[\"']?[ \t]*+(?:->|:?[=:]>?)[ \t]*+|[ \t]++)",
    re.ASCII,
)
"""A name, and what stands between it and its value; a value may hold the next name."""

_VALUE = re.compile(
    r"\[[^\]\n]*+\]?|\{[^}\n]*+\}?|\\\"[^\"\n]*+\"?|\"(?:[^\"\\\n]|\\.)*+\"?|'[^'\n]*+'?"
    # Where another name follows, a separator ends it.
    r"|(?:[^\s\"',;&]|[,;&](?![\w.-]{1,64}+=|[\s\"']|$))++"
)
_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
_REST = re.compile(r"[^\"'\n]+")
"""The value of a header: several words."""

_PLAIN = frozenset(
    {"true", "false", "null", "none", "yes", "no", "on", "off"}
    | {"accepted", "denied", "expired", "failed", "granted", "invalid", "missing", "ok", "required"}
)
"""What is said of a secret, and is none."""

_COUNT = re.compile(r"[0-9]{1,5}")
_BEFORE_A_SPACE = frozenset({"requirepass", "masterauth"})
"""Directives whose value stands after a space."""

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
        ),
        REDACTED,
    ),
    (re.compile(r"(?i)\b(bearer|basic)[ \t]+[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {REDACTED}"),
    (
        re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,20}://)[^\s/?#@:\"']{0,256}:[^\s/?#@\"']{1,256}@"),
        rf"\1{REDACTED}@",
    ),
    # Addresses of webhooks: whoever has one may write.
    (
        re.compile(
            r"(?i)\b(https?://(?:hooks\.slack\.com|(?:[\w-]{1,63}+\.)?discord(?:app)?\.com/api/webhooks"
            r"|[\w-]{1,63}+\.webhook\.office\.com|api\.telegram\.org)/)[^\s\"'<>]+"
        ),
        rf"\1{REDACTED}",
    ),
    # curl -u user:password, but not a user and a group by their numbers
    (
        re.compile(
            r"(?<![\w-])((?:-[uU]|--(?:proxy-)?user)[ \t=]{1,3}+)([\"'])?"
            r"(?!\d++:\d)(([\w.@\\-]{1,128}+):)(?!/|\4(?:\s|$))(?(2)[^\"'\n]+|[^\s\"']+)"
        ),
        rf"\1\2\3{REDACTED}",
    ),
    # mysql -pPASSWORD and its family, after any other arguments
    (
        re.compile(
            r"\b((?:mysql|mariadb)[\w-]{0,20}+(?:[ \t]++(?!-p|\S*(?:mysql|mariadb))\S++)*+[ \t]++-p)"
            r"(?!ort\b|rotocol\b)(?:\"[^\"\n]*+\"?|'[^'\n]*+'?|\S++)"
        ),
        rf"\1{REDACTED}",
    ),
    # sshpass -p PASSWORD, redis-cli -a PASSWORD, docker login -p PASSWORD
    (
        re.compile(
            r"\b((?:sshpass[ \t]++-p|redis-cli[ \t]++(?:-h[ \t]++\S++[ \t]++)?(?:-p[ \t]++\d++[ \t]++)?-a"
            r"|docker[ \t]++login[ \t]++(?:-u[ \t]++\S++[ \t]++)?-p)[ \t]*+)"
            r"(?:\"[^\"\n]*+\"?|'[^'\n]*+'?|\S++)"
        ),
        rf"\1{REDACTED}",
    ),
    # SQL: CREATE USER a IDENTIFIED BY 'x', ALTER ROLE a PASSWORD 'x'
    (
        re.compile(
            r"(?i)\b(identified[ \t]++(?:with[ \t]++\S++[ \t]++)?by|password)([ \t]++)'(?:[^'\n]|'')*+'?"
        ),
        rf"\1\2{REDACTED}",
    ),
    (
        re.compile(r"(?i)(<(?:[\w.:-]{0,64}?)(?:password|passwd|secret|token|apikey)>)[^<\n]++"),
        rf"\1{REDACTED}",
    ),
    # The signature of an address that lets whoever has it in
    (re.compile(r"(?i)([?&](?:sig|x-amz-signature)=)[^&\s\"']++"), rf"\1{REDACTED}"),
    (re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]*"), REDACTED),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), REDACTED),
    (
        re.compile(
            r"\b(?:gh[pousr]_|github_pat_|glpat-|sk-|[sr]k_live_|npm_|AIza|xox[abprs]-|xapp-|hf_)[A-Za-z0-9_-]{16,}"
        ),
        REDACTED,
    ),
)

_KEY_BEGINS = re.compile("-----BEGIN [A-Z ]*PRIVATE KEY-----")
_KEY_ENDS = re.compile("-----END [A-Z ]*PRIVATE KEY-----")

_IDENTITIES = frozenset(
    {"by", "to", "accounts", "called", "recipient", "requester", "host", "action", "fact", "stage", "role"}
)

_learning = threading.Lock()
_known: dict[str, frozenset[str]] = {}
_known_pattern: re.Pattern[str] | None = None


def know_secrets(source: str, values: Iterable[str]) -> None:
    """Take values out of every text from now on, in this process.

    A value of letters or of digits alone is taken out where it is a word of its own, any other one wherever
    it stands, also as JSON writes it.

    Args:
        source: Where they come from; what was known from there before is forgotten.
        values: The secrets; those of fewer than `SHORTEST` characters are left out.
    """
    global _known_pattern  # noqa: PLW0603
    with _learning:
        _known[source] = frozenset(value for value in values if len(value) >= SHORTEST)
        known = frozenset().union(*_known.values()) - {REDACTED.strip("[]")}
        found = known.union(*((json.dumps(value)[1:-1], _json(value)) for value in known))
        ways = [_way(value) for value in sorted(found, key=lambda value: (-len(value), value))]
        _known_pattern = re.compile("|".join(ways)) if ways else None


def _json(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)[1:-1]


def _way(value: str) -> str:
    """The pattern of a known value."""
    alone = value.isalpha() or value.isdigit()
    return rf"(?<!\w){value}(?!\w)" if alone else re.escape(value)


def redact_text(text: str) -> str:
    """Return a text without the secrets that are known, or can be told by their names or their look."""
    if _known_pattern is not None:
        text = _known_pattern.sub(REDACTED, text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return _redact_named(text)


def is_identity(name: str) -> bool:
    """Whether a value of this name says who or which, so that a record must keep it: ``by``, ``step_id``."""
    return name in _IDENTITIES or name.endswith(("_id", "_ids"))


def redact(value: JsonValue) -> JsonValue:
    """Return a JSON value without secrets, told by their names or their look; whoever did it stays told."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, list):
        return _of_list(value, redact)
    if isinstance(value, dict):
        return {redact_text(name): _of_name(name, item) for name, item in value.items()}
    return value


def _of_name(name: str, value: JsonValue) -> JsonValue:
    """Take secrets out of what stands under a name in a record."""
    if is_secret_name(name):
        return _hidden(value)
    if is_identity(name) and not isinstance(value, dict):
        return value
    return redact(value)


def _of_list(values: list[JsonValue], redacted: Callable[[JsonValue], JsonValue]) -> list[JsonValue]:
    """Take secrets out of a list; a private key may stand in it line by line."""
    kept: list[JsonValue] = []
    inside = False
    for value in values:
        begins = isinstance(value, str) and _KEY_BEGINS.search(value) is not None
        ends = isinstance(value, str) and _KEY_ENDS.search(value) is not None
        kept.append(REDACTED if inside and isinstance(value, str) else redacted(value))
        inside = (inside or begins) and not ends
    return kept


def redact_looks(value: JsonValue) -> JsonValue:
    """Return a JSON value without the secrets among its texts, told by name or look; names and types stay."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, list):
        return _of_list(value, redact_looks)
    if isinstance(value, dict):
        return {
            name: REDACTED if isinstance(item, str) and item and is_secret_name(name) else redact_looks(item)
            for name, item in value.items()
        }
    return value


def is_secret_name(name: str) -> bool:
    """Whether a value of this name is a secret: ``dbPassword``, ``API_KEY``; not ``prompt_tokens``."""
    words = _words(name)
    return any(_is_secret(words, end) for end in range(1, len(words) + 1))


def _is_secret(words: list[str], end: int) -> bool:
    """Whether the word before a place says that a value is a secret."""
    before, word = (words[end - 2] if end > 1 else ""), words[end - 1]
    if word == "pass":
        return end == len(words) and before not in _PASSED_ON
    if word in {"key", "keys"}:
        return before in _KEY_OWNERS
    return word == "pwd" or word.endswith(_SECRET_ENDS)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _redact_named(text: str) -> str:
    kept: list[str] = []
    done = 0
    for found in _NAMED.finditer(text):
        if found.start() < done or not _says_secret(found[1], found[2]):
            continue
        whole = ":" in found[2] and found[1].lower() in _HEADERS
        value = (_REST if whole else _VALUE).match(text, found.end())
        if value is None or _is_plain(found[1], value[0]):
            continue
        if found[1] == "PWD" and value[0].startswith("/"):
            continue  # where a shell is
        kept += text[done : found.end()], REDACTED
        done = value.end()
    return "".join([*kept, text[done:]])


def _is_plain(name: str, value: str) -> bool:
    """Whether a value is none of a secret: ``token: expired``, ``max_token=5``, ``password_min_length=8``."""
    # A quoted value is one: a passphrase may begin with any word.
    quoted = value.startswith(('"', "'", "\\"))
    first = (value if quoted else value.split(maxsplit=1)[0]).strip("\\\"'()[]").lower()
    if first in _PLAIN:
        return True
    words = _words(name)
    counted = words[-1] in {"token", "pass"} or not _is_secret(words, len(words))
    return counted and _COUNT.fullmatch(first) is not None


def _says_secret(name: str, between: str) -> bool:
    """Whether a name in a text says that what follows is a secret.

    Before a mere colon it must end in a word for one: ``SecretManager: started`` is a line of a log.
    """
    if not between.strip(" \t"):
        asked = name.startswith("-") and not name.startswith("--no-")
        return name.lower() in _BEFORE_A_SPACE or (asked and _ends_secret(name))
    if "=" in between or between[0] in "\\\"'" or name.isupper():
        return is_secret_name(name)
    return _ends_secret(name)


def _ends_secret(name: str) -> bool:
    words = [word for word in _words(name) if not word.isdigit()]
    return bool(words) and _is_secret(words, len(words))


def _hidden(value: JsonValue) -> JsonValue:
    if value is None or isinstance(value, bool) or value == "":
        return value
    return REDACTED
