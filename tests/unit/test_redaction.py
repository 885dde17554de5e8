"""Secrets are taken out; what only sounds like one stays."""

import json
import time
from pathlib import Path

import pytest
from pydantic import JsonValue

from watchkeeper.tools.redaction import (
    REDACTED,
    is_secret_name,
    know_secrets,
    redact,
    redact_looks,
    redact_text,
)

LOGHUB = Path(__file__).parents[3] / "shared" / "data" / "loghub"


@pytest.mark.parametrize(
    "name",
    [
        "API_KEY",
        "AWS_SECRET",
        "Authorization",
        "DB_PASSWORD",
        "HTTPToken",
        "X-Api-Key",
        "access-token",
        "apiKey",
        "client_secret",
        "dbPassword",
        "password",
        "private_key",
        "secret_access_key",
        "token",
        "DB_PASS",
        "PGPASSWORD",
        "authtoken",
        "pass",
        "requirepass",
    ],
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "prompt_tokens",
        "max_tokens",
        "key",
        "keyboard",
        "passed",
        "host",
        "compass",
        "primary_key",
        "proxy_pass",
        "pass_rate",
    ],
)
def test_other_names_are_left_alone(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abc.DEF-123_456", "abc.DEF-123_456"),
        ("basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA=="),
        ("postgresql://app:hunter2@db:5432/x", "hunter2"),
        ("redis://:hunter2@cache/0", "hunter2"),
        ("PGPASSWORD=hunter2 psql", "hunter2"),
        ('{"api_key": "hunter2 three"}', "hunter2 three"),
        ("secret: hunter2, next", "hunter2"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY-----", "hunter2"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2 without an end", "hunter2"),
        ("key AKIAABCDEFGHIJKLMNOP used", "AKIAABCDEFGHIJKLMNOP"),
        ("ghp_abcdefghijklmnopqrstuvwx", "ghp_abcdefghijklmnopqrstuvwx"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "eyJzdWIiOiIxIn0"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG", "K7MDENG"),
        ("DB_PASS=hunter2", "hunter2"),
        ("DB_PASS: hunter2", "hunter2"),
        ("PASSWORD_PROD=hunter2", "hunter2"),
        ("password      =   hunter2", "hunter2"),
        ("'db_pass' => 'hunter2'", "hunter2"),
        ("password='hunter2 that was cut off", "hunter2"),
        ('{\\"password\\":\\"hunter2\\"}', "hunter2"),
        ("secret=abc,hunter2", "hunter2"),
        ("secret=abc;hunter2&hunter2", "hunter2"),
        ("cmd=--db-password=hunter2", "hunter2"),
        ("mysqldump --password hunter2secret", "hunter2"),
        ("keytool -storepass hunter2", "hunter2"),
        ("mysql -phunter2secret", "hunter2"),
        ("/usr/bin/mysqldump -u root -h db -p'hunter2 two' shop", "hunter2"),
        ("mysqldump mysql -phunter2 | mysql -phunter2", "hunter2"),
        ("curl -u admin:hunter2secret http://api/", "hunter2"),
        ("curl --user 'admin:hunter2 two' http://api/", "two"),
        ("requirepass hunter2", "hunter2"),
        ("redis-server --requirepass hunter2", "hunter2"),
        ("post https://hooks.slack.com/services/T01/B01/hunter2 failed", "hunter2"),
        ("https://discord.com/api/webhooks/1234/hunter2", "hunter2"),
        ("Cookie: session=abc; remember=hunter2", "hunter2"),
        ("CREATE USER a IDENTIFIED BY 'hunter2 two'", "hunter2"),
        ("ALTER ROLE a WITH PASSWORD 'hunter2'", "hunter2"),
        ("<db><password>hunter2</password></db>", "hunter2"),
        ("password := hunter2", "hunter2"),
        ("password -> hunter2", "hunter2"),
        ("DefaultEndpointsProtocol=https;AccountKey=hunter2/x==;Suffix=y", "hunter2"),
        ("https://x.blob/y?se=1&sig=hunter2%3D", "hunter2"),
        ("sk_live_abcdefghijklmnopqrst", "sk_live_abcdefghijklmnopqrst"),
        ("sshpass -p hunter2 ssh a", "hunter2"),
        ("redis-cli -h cache -p 6379 -a hunter2 ping", "hunter2"),
        ("docker login -u ann -p hunter2 reg", "hunter2"),
        ('passphrase="no way hunter2 42"', "hunter2"),
        ("password: 'on the road hunter2'", "hunter2"),
        ('db_password => "yes hunter2"', "hunter2"),
        ('{"passwords": ["hunter2x", "abc"]}', "abc"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_text(text: str, secret: str) -> None:
    assert secret not in redact_text(text)
    assert REDACTED in redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8080/health answers 200",
        "service api restarted at 12:30:05",
        "see user@example.org",
        "GET http://web:80/a?b=c@d",
        "the token bucket is empty",
        "docker run -u 1000:1000 image",
        "rsync -u web:/srv/data .",
        "date -u +%H:%M",
        "mysql -h db -P 3306 -p shop",
        "sudo: root : TTY=pts/0 ; PWD=/root ; USER=root ; COMMAND=/bin/ls",
        "org.apache.hadoop.security.token.SecretManager: Creating password",
        "at TokenCache.java:123",
        "Failed password for root from 203.0.113.9 port 22 ssh2",
        "token_expired=true password=null",
        "proxy_pass http://backend; proxy_pass=http://backend",
        "token: expired",
        "Access denied for user 'a'@'b' (using password: YES)",
        "Authorization: failed for user root from 10.0.0.1",
        "max_token=5 token_count=12 session_token_ttl=3600 password_min_length=8",
        "PasswordAuthentication=no",
        "pass=3 fail=2",
        "mysqldump --no-password prompt",
        "mysql -port 3306",
        "install -u www-data:www-data x",
    ],
)
def test_plain_text_is_left_alone(text: str) -> None:
    assert redact_text(text) == text


def test_secrets_are_found_at_any_depth_and_empty_ones_stay_visible() -> None:
    given = {"a": [{"password": "x", "n": 1}], "token": {"inner": "y"}, "secret": "", "passphrase": None}
    assert redact(given) == {
        "a": [{"password": REDACTED, "n": 1}],
        "token": REDACTED,
        "secret": "",
        "passphrase": None,
    }


def test_what_follows_a_secret_stays() -> None:
    assert redact_text("user=a,password=hunter2,host=c d") == f"user=a,password={REDACTED},host=c d"
    assert redact_text("secret: hunter2, next") == f"secret: {REDACTED}, next"
    assert redact_text("http://x/?token=hunter2&y=1") == f"http://x/?token={REDACTED}&y=1"


@pytest.mark.skipif(not LOGHUB.is_dir(), reason="the public Loghub samples are not beside the project")
@pytest.mark.parametrize("name", ["Apache", "BGL", "Linux", "OpenSSH"])
def test_lines_of_ordinary_logs_are_left_alone(name: str) -> None:
    path = LOGHUB / f"{name}_2k.log"
    lines = path.read_text(errors="replace").splitlines()
    assert [line for line in lines if redact_text(line) != line] == []


def test_known_values_are_taken_out_whatever_they_look_like() -> None:
    know_secrets("home", ["correct-horse", "watch", "gardening"])
    assert redact_text("got correct-horse back, xcorrect-horsex") == f"got {REDACTED} back, x{REDACTED}x"
    assert redact_text("watch the gardening") == f"watch the {REDACTED}"  # the first is too short
    assert redact_text("gardenings") == "gardenings"
    assert redact({"a": ["correct-horse"], "correct-horse": 1}) == {"a": [REDACTED], REDACTED: 1}
    know_secrets("elsewhere", ["another-one"])
    know_secrets("home", [])
    assert redact_text("correct-horse another-one") == f"correct-horse {REDACTED}"


def test_known_values_are_taken_out_of_json_too() -> None:
    know_secrets("home", ['pass"word\\1', "gr\u00fcne-gans"])
    for text in (
        'pass"word\\1',
        json.dumps('pass"word\\1'),
        json.dumps("gr\u00fcne-gans"),
        "gr\u00fcne-gans",
    ):
        assert "word" not in redact_text(text)
        assert "gans" not in redact_text(text)


def test_known_digits_are_taken_out_as_a_whole_alone() -> None:
    know_secrets("home", ["123456"])
    assert redact_text("pin 123456") == f"pin {REDACTED}"
    assert redact_text("sha256:9f12345678aa of 1234567") == "sha256:9f12345678aa of 1234567"


def test_a_private_key_is_taken_out_of_a_list_of_its_lines() -> None:
    lines: JsonValue = ["a", "-----BEGIN PRIVATE KEY-----", "MIIhunter2", "-----END PRIVATE KEY-----", "b"]
    for found in (redact({"lines": lines}), redact_looks({"lines": lines})):
        assert found == {"lines": ["a", REDACTED, REDACTED, REDACTED, "b"]}


def test_who_did_it_stays_told() -> None:
    know_secrets("home", ["watchkeeper"])
    told: JsonValue = {
        "by": "watchkeeper",
        "accounts": ["watchkeeper"],
        "step_id": "watchkeeper",
        "detail": "x",
    }
    assert redact(told) == told
    assert redact({"detail": "as watchkeeper said"}) == {"detail": f"as {REDACTED} said"}


HOSTILE = [
    "a",
    "password",
    "password=",
    "password ",
    "password:'\"",
    'password=\\"',
    "secret=,",
    "-a ",
    "-u a:",
    "mysql ",
    "mysql-",
    "mysql x -q",
    "/mysql/x ",
    "mysq",
    "https://a-",
    "a://",
    "a:",
    "a.",
    "aB",
    "eyJ",
    "eyJ-",
    "-----BEGIN ",
    "-----BEGIN PRIVATE KEY-----",
    "bearer \t",
    "known-valu",
    "identified by ",
    "password '",
    "<password>",
    "<a:",
    "sshpass ",
    "redis-cli -h a ",
    "docker login ",
    "&sig=",
    "token=5 ",
    "a->",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("start", ["", 'mysql -u a "password=', "curl -u a:"])
def test_time_grows_with_the_length_of_a_line_and_no_faster(text: str, start: str) -> None:
    know_secrets("home", ["known-value"])
    line = start + text * (100_000 // len(text))
    started = time.monotonic()
    redact_text(line)
    assert time.monotonic() - started < 5  # a tenth of a second; what grows faster takes much longer


def test_a_line_of_a_megabyte_is_read_in_seconds() -> None:
    line = "level=info token=abc user=a,b mysql -pabc -u a:b https://a:b@c/d eyJ " * 14_500
    started = time.monotonic()
    assert "abc" not in redact_text(line)
    assert time.monotonic() - started < 20


def test_texts_under_the_name_of_a_secret_are_taken_out_and_types_stay() -> None:
    given: JsonValue = {
        "password": "hunter2x",
        "db": {"token": "abcd", "prompt_tokens": 5},
        "tokens": 3,
        "secret": "",
    }
    assert redact_looks(given) == {
        "password": REDACTED,
        "db": {"token": REDACTED, "prompt_tokens": 5},
        "tokens": 3,
        "secret": "",
    }
