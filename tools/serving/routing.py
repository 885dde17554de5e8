"""Who answers a request: the champion, or for a share of them the challenger."""

from __future__ import annotations

import hashlib


def is_canary(request_id: str, share: float) -> bool:
    """Whether a request belongs to the share that the challenger answers; always the same for the same id.

    Args:
        request_id: Its id.
        share: From 0 to 1.
    """
    number = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big")
    return number < share * 2**64
