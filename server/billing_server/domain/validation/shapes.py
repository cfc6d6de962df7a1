"""Tables of rules: which rule each field of a struct obeys, and which fields must agree with each other.

A rule judges one value that is there; a relation judges several fields of one struct together. What is left
out (None, UNSET) obeys every rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import UNSET, UnsetType

from billing_server.domain.validation.findings import Findings

Rule = Callable[[Any, str, Findings], None]
"""Judges a value (never None or UNSET) of a field."""

Relation = Callable[[Any, Findings], None]
"""Judges fields of a struct together."""


def anything(value: Any, field: str, findings: Findings) -> None:
    """The rule of fields whose type says all: booleans and enum values."""


class Shape:
    """The rules of one struct, by field, and its relations.

    A field that is not in the table obeys no rule; but whether it may be cleared is still judged, by its type:
    in updates, None is refused where the type has UNSET and not None. Text that is required and empty is
    missing.
    """

    __slots__ = ("_fields", "_relations", "struct")

    def __init__(
        self, struct: type[msgspec.Struct], rules: Mapping[str, Rule] | None = None, *relations: Relation
    ) -> None:
        rules = rules or {}
        known = {info.name: info for info in msgspec.structs.fields(struct)}
        unknown = rules.keys() - known.keys()
        if unknown:
            raise AssertionError(f"{struct.__name__} has no field {', '.join(sorted(unknown))}")
        self.struct = struct
        self._relations = relations
        fields = []
        for name, annotation in get_type_hints(struct).items():
            types = get_args(annotation)
            kept = UnsetType in types and NoneType not in types
            if name in rules or kept:
                required_text = known[name].required and annotation is str
                fields.append((name, rules.get(name, anything), kept, required_text))
        self._fields = tuple(fields)

    @property
    def ruled(self) -> frozenset[str]:
        """The names of the fields that obey a rule of the table."""
        return frozenset(name for name, rule, _, _ in self._fields if rule is not anything)

    def check(self, struct: msgspec.Struct, findings: Findings) -> None:
        """Judge all fields, then their relations."""
        for name, rule, kept, required_text in self._fields:
            value = getattr(struct, name)
            if value is None:
                if kept:
                    findings.add(name, "parameter_invalid_empty", "cannot be cleared; give it a value or leave it out")
            elif required_text and value == "":
                findings.add(name, "parameter_missing", "is required")
            elif value is not UNSET:
                rule(value, name, findings)
        for relation in self._relations:
            relation(struct, findings)


def nested(shape: Shape) -> Rule:
    """The rule of a field that holds a struct."""

    def rule(value: Any, field: str, findings: Findings) -> None:
        mark = len(findings.violations)
        shape.check(value, findings)
        if len(findings.violations) > mark:
            findings.place(mark, f"{field}.")

    return rule


def each(of_one: Rule | Shape, *, most: int, least: int = 0) -> Rule:
    """The rule of a field that holds several values: how many, and what each of them obeys."""
    rule_of_one = nested(of_one) if isinstance(of_one, Shape) else of_one

    def rule(values: Any, field: str, findings: Findings) -> None:
        if len(values) < least:
            findings.add(field, "parameter_invalid_empty", f"needs at least {least}: give one")
        if len(values) > most:
            findings.add(field, "parameter_invalid", f"holds at most {most}, not {len(values)}; give fewer")
            return
        for index, value in enumerate(values):
            mark = len(findings.violations)
            rule_of_one(value, "", findings)
            if len(findings.violations) > mark:
                findings.place(mark, f"{field}[{index}]")

    return rule


def is_given(value: Any) -> bool:
    """Whether a field says anything: it is not left out, cleared, false or empty. Zero says something."""
    return value is not None and value is not UNSET and value is not False and value not in ((), "")


def exclusive(*names: str, way_out: str) -> Relation:
    """At most one of the fields may be given; every further one is told."""

    def relation(struct: Any, findings: Findings) -> None:
        first = None
        for name in names:
            if not is_given(getattr(struct, name)):
                continue
            if first is None:
                first = name
            else:
                findings.add(name, "parameters_exclusive", f"not together with {first}; {way_out}")

    return relation


def needs(name: str, needed: str, way_out: str) -> Relation:
    """A field that is given needs another one beside it."""

    def relation(struct: Any, findings: Findings) -> None:
        if is_given(getattr(struct, name)) and not is_given(getattr(struct, needed)):
            findings.add(needed, "parameter_missing", f"{name} needs it; {way_out}")

    return relation
