"""Metadata: free key-value pairs on most objects, bounded (semantics 1, Common)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from billing_server.domain.errors import Violation, invalid

KEYS_MAX = 50
KEY_LENGTH_MAX = 40
VALUE_LENGTH_MAX = 500


def metadata_violations(metadata: Mapping[str, str], field: str = "metadata") -> Iterator[Violation]:
    """What breaks the limits in a request's metadata."""
    if len(metadata) > KEYS_MAX:
        yield Violation(field, "metadata_invalid", f"at most {KEYS_MAX} keys; {len(metadata)} were given")
    for key, value in metadata.items():
        if not 0 < len(key) <= KEY_LENGTH_MAX:
            yield Violation(field, "metadata_invalid", f"keys have 1 to {KEY_LENGTH_MAX} characters: '{key[:50]}'")
        if len(value) > VALUE_LENGTH_MAX:
            yield Violation(
                f"{field}[{key[:KEY_LENGTH_MAX]}]",
                "metadata_invalid",
                f"values have at most {VALUE_LENGTH_MAX} characters; this one has {len(value)}",
            )


def merged_metadata(current: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    """Keys are merged; an empty value unsets its key.

    Changes of no key at all clear it: they come of a mask that names a field which the request leaves out.
    """
    if not changes:
        return {}
    merged = {**current, **changes}
    kept = {key: value for key, value in merged.items() if value != ""}
    if len(kept) > KEYS_MAX:
        raise invalid("metadata", "metadata_invalid", f"at most {KEYS_MAX} keys; with these it would be {len(kept)}")
    return kept


def initial_metadata(given: Mapping[str, str]) -> dict[str, str]:
    """The metadata of a new object: keys without a value are not kept."""
    return merged_metadata({}, given)
