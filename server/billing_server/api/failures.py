"""What a caller is told of a call, or of a part of one, that failed. Failures of the engine are logged here."""

from __future__ import annotations

import logging

from google.rpc.status_pb2 import Status

from billing_server.api.call import Call
from billing_server.api.refusals import internal, status_of, translated
from billing_server.api.replay import Refused

LOGGER = logging.getLogger(__name__)


def status_told(call: Call, error: Exception) -> Status:
    """The status of what went wrong; what should never happen is told to the log alone."""
    if isinstance(error, Refused):
        return error.status
    refusal = translated(error)
    if refusal is None:
        LOGGER.error("%s failed", call.name, exc_info=error)
        refusal = internal(call.request_id)
    elif refusal is not error:
        LOGGER.warning("%s: %r", call.name, error)
    return status_of(refusal)
