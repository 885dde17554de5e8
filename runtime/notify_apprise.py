"""Mail, chat and webhooks by Apprise (https://github.com/caronc/apprise, BSD-2-Clause).

Addresses carry passwords: they are read when they are needed, from the environment or a file that others
cannot read, and no text of the library is passed on, since it may quote them.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from watchkeeper.runtime.errors import DeliveryUnknownError, NotSentError
from watchkeeper.runtime.known_secrets import SECRETS, learn_secret
from watchkeeper.runtime.notify import Message

_LOGGER = "apprise"
_NO_CONNECTION = re.compile(
    r"Connection refused|NewConnectionError|NameResolutionError|ConnectTimeout|Name or service not known"
    r"|Temporary failure in name resolution|No route to host|Network is unreachable"
)
_HTTP_STATUS = re.compile(r"error=([1-5][0-9][0-9])\b")
_SMTP_STATUS = re.compile(r"\(([45][0-9][0-9]), b")
_ONE_AT_A_TIME = threading.Lock()
"""What the library logs belongs to one message only."""


def read_secret(name: str, home: Path) -> str:
    """Return a secret: the environment variable of that name, else the file in ``secrets`` in the home.

    Args:
        name: Its name.
        home: Folder of Watchkeeper's state.

    Raises:
        NotSentError: If it is not there, or others can read its file.
    """
    value = os.environ.get(name)
    if value:
        learn_secret(home, name, value)
        return value.strip()
    path = home / SECRETS / name
    try:
        if path.stat().st_mode & 0o077:
            raise NotSentError(f"secret {str(path)!r} can be read by others: chmod 600 it")
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise NotSentError(
            f"secret {name!r} is not there: set it in the environment, or write it into {str(path)!r}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise NotSentError(f"secret {str(path)!r} cannot be read") from error
    if not text or "\n" in text:
        raise NotSentError(f"secret {str(path)!r} must hold one address in one line")
    learn_secret(home, name, text)
    return text


class AppriseSink:
    """Sends by the address that a secret holds; what cannot be told after a crash is not sent again.

    Args:
        secret: Name of the secret.
        home: Folder of Watchkeeper's state.
    """

    repeatable = False

    def __init__(self, secret: str, home: Path) -> None:
        self._secret = secret
        self._home = home

    def send(self, message: Message) -> None:
        """Send a message, once: the library's own repetitions are off.

        Raises:
            NotSentError: If the extra ``notify`` is not installed, the address is not usable, no connection
                was made, or the server refused the message.
            DeliveryUnknownError: If anything else went wrong.
        """
        service = self._service(read_secret(self._secret, self._home))
        with _logged() as lines:
            try:
                sent = service.notify(body=message.text, title=f"[{message.id}] {message.title}")
            except Exception as error:  # noqa: BLE001 (whatever a plug-in raises)
                # Its text may quote the address; its type does not.
                raise DeliveryUnknownError(f"sending failed with {type(error).__name__}") from None
            said = "\n".join(lines)
        if not sent:
            raise _judged(said, targets=len(service))

    def _service(self, address: str) -> Any:
        try:
            from apprise import Apprise, AppriseAsset
        except ImportError as error:
            raise NotSentError(
                "mail, chat and webhooks need the extra 'notify': pip install 'watchkeeper[notify]'"
            ) from error
        with _logged():
            service = Apprise.instantiate(address, asset=AppriseAsset(app_id="Watchkeeper"))
        if service is None:
            raise NotSentError(f"secret {self._secret!r} does not hold an address that Apprise knows")
        service.retry = 0
        return service


def _judged(said: str, *, targets: int) -> Exception:
    """Tell from what the library logged whether a message that it gave up may have been sent."""
    if targets > 1:
        return DeliveryUnknownError("it was not sent to all of several recipients of one address")
    mail, web = _SMTP_STATUS.search(said), _HTTP_STATUS.search(said)
    if mail is not None:
        return NotSentError(f"the mail server answered {mail[1]}")
    if web is not None:
        # A server that failed, or gave up waiting, may have passed the message on before.
        refused = web[1] == "503" or (web[1].startswith("4") and web[1] != "408")
        return (NotSentError if refused else DeliveryUnknownError)(f"the server answered {web[1]}")
    if _NO_CONNECTION.search(said):
        return NotSentError("no connection to the server was made")
    return DeliveryUnknownError("the connection broke, or the server did not answer in time")


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Collect what the library logs, and let nobody else see it: it may quote addresses."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, collector = logging.getLogger(_LOGGER), Collector()
    with _ONE_AT_A_TIME:
        before = logger.level, logger.propagate, logger.handlers
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.handlers = [collector]
        try:
            yield lines
        finally:
            logger.setLevel(before[0])
            logger.propagate, logger.handlers = before[1:]
