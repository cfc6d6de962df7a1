"""Card numbers in text: found so that they can be refused (promise 25: no card number is ever stored).

A card number is 13 to 19 digits that pass the Luhn check, written together or in groups with one and the same
separator. Groups are taken whole, so a part of a longer run of digits is none, and neither are digits that
hang on a letter or an underscore, or in a UUID: those are identifiers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

CARD_DIGITS_MIN = 13
CARD_DIGITS_MAX = 19

_SEPARATORS = " \u00a0\\-\u2010\u2011\u2013"
_MANY_DIGITS = re.compile(rf"(?:[0-9][{_SEPARATORS}]?){{{CARD_DIGITS_MIN}}}")
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE)
_RUN = re.compile(rf"(?<![0-9A-Za-z_])[0-9]+(?:[{_SEPARATORS}][0-9]+)*(?![0-9A-Za-z_])")
_GROUP = re.compile(rf"([0-9]+)([{_SEPARATORS}]?)")

# What a digit becomes when it is doubled: twice its value, less nine when that has two digits.
_DOUBLED = str.maketrans("0123456789", "0246813579")


def has_card_number(text: str) -> bool:
    """Whether a card number stands in the text."""
    if len(text) < CARD_DIGITS_MIN or _MANY_DIGITS.search(text) is None:
        return False
    without_uuids = _UUID.sub("\n", text)
    return any(_passes_luhn(digits) for run in _RUN.finditer(without_uuids) for digits in _candidates(run.group()))


def _candidates(run: str) -> Iterator[str]:
    """The runs of whole groups with one separator that have as many digits as a card number."""
    groups = _GROUP.findall(run)
    for first, (digits, separator) in enumerate(groups):
        following = first + 1
        between = separator
        while len(digits) <= CARD_DIGITS_MAX:
            if len(digits) >= CARD_DIGITS_MIN:
                yield digits
            if following == len(groups) or between != separator:
                break
            digits += groups[following][0]
            between = groups[following][1]
            following += 1


def _passes_luhn(digits: str) -> bool:
    weighed = digits[-1::-2] + digits[-2::-2].translate(_DOUBLED)
    return (sum(weighed.encode()) - len(weighed) * ord("0")) % 10 == 0
