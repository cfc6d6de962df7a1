"""Signatures of webhooks, after the convention of Standard Webhooks (version 1 of its symmetric scheme).

What is signed is the id, the time of the try and the body, so none of them can be exchanged. The header holds one
signature for each secret that is valid; a receiver is content with any that fits its own.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from typing import Final

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"


def signed_headers(secrets: Sequence[bytes], identity: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that say and prove which message this is; `timestamp` is in UTC seconds."""
    content = f"{identity}.{timestamp}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(secret, content, "sha256")).decode() for secret in secrets)
    return {
        ID_HEADER: identity,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: " ".join(f"v1,{signature}" for signature in signatures),
    }
