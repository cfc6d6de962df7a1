"""Etags: a caller's word on which version of an object its change is meant for."""

from __future__ import annotations

from billing_server.domain.errors import Conflict


def etag_of(version: int) -> str:
    """The etag of an object in this version."""
    return f"v{version}"


def check_etag(etag: str | None, version: int) -> None:
    """Refuse a change that was meant for another version; without an etag anything goes."""
    if etag is not None and etag != etag_of(version):
        raise Conflict(
            "etag_mismatch",
            f"the object has changed: its etag is '{etag_of(version)}', not '{etag}'; read it and try again",
            field="etag",
        )
