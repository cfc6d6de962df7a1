"""Logs as lines of JSON on the standard error stream, each with the context of the call that wrote it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from billing_server.api.call import RUNNING


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the call's fields, and the error with its trace."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        call = RUNNING.get(None)
        if call is not None:
            fields |= call.log_fields()
        code = getattr(record, "code", None)
        if code is not None:
            fields["code"] = code
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


def set_up(level: str) -> None:
    """Write all logs of this process so. Libraries are heard from the warning level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    logging.getLogger("billing_server").setLevel(level.upper())
    logging.captureWarnings(capture=True)
