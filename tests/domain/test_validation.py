"""Validation as a whole: all violations at once, no rule forgotten, and nothing but `InvalidArgument` raised."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, UnsetType

from billing_server.domain import commands as c
from billing_server.domain.errors import REASONS, InvalidArgument
from billing_server.domain.validation import SHAPES, check_api_key, validate
from billing_server.domain.validation.account import EMAILS, OVERDUE_POLICY
from billing_server.domain.validation.catalog import RECURRING, TIER, TRANSFORM_QUANTITY
from billing_server.domain.validation.customer import ADDRESS, CARD, SHIPPING
from billing_server.domain.validation.shapes import Shape
from billing_server.domain.validation.subscription import (
    ADDED_ITEM,
    ANCHOR_CONFIG,
    ITEM,
    ITEM_CHANGE,
    ITEM_INTERVAL,
    PAUSE,
)

NOW = 1_750_000_000
NESTED = (
    ADDED_ITEM,
    ADDRESS,
    ANCHOR_CONFIG,
    CARD,
    EMAILS,
    ITEM,
    ITEM_CHANGE,
    ITEM_INTERVAL,
    OVERDUE_POLICY,
    PAUSE,
    RECURRING,
    SHIPPING,
    TIER,
    TRANSFORM_QUANTITY,
)
JUDGED_BY_RELATIONS = {"interval_count", "tiers_mode"}
OF_THE_ENGINE = {c.SettleAttempt, c.SettleRefund}


def strategy_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a type as it is written in a struct."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(strategy_of(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(strategy_of(arguments[0]), strategy_of(arguments[1]), max_size=3)
    if arguments:
        return st.one_of([strategy_of(argument) for argument in arguments])
    if annotation is UnsetType:
        return st.just(UNSET)
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return struct_of(annotation)
    return PLAIN[annotation]


def struct_of(struct: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Structs with any values that their types allow; what has a default is often left out."""
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    hints = get_type_hints(struct)
    for field in msgspec.structs.fields(struct):
        (required if field.required else optional)[field.name] = strategy_of(hints[field.name])
    return st.fixed_dictionaries(required, optional=optional).map(lambda values: struct(**values))


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.one_of(
        ANY_TEXT,
        st.sampled_from(["usd", "eur", "cus_1", "jenny@example.com", "4242 4242 4242 4242", "a" * 600, "a\x00"]),
        st.text("0123456789 -+ex", max_size=60),
    ),
    int: st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-1, 40), st.integers(NOW - 10, NOW + 10)),
    bool: st.booleans(),
    Decimal: st.one_of(
        st.decimals(allow_nan=True, allow_infinity=True),
        st.sampled_from([Decimal("1E+999999"), Decimal("1E-1000020"), Decimal("0E-1000020"), Decimal("sNaN")]),
    ),
    type(None): st.none(),
}
COMMANDS = st.sampled_from(sorted(SHAPES, key=lambda command: command.__name__)).flatmap(struct_of)


@given(command=COMMANDS)
def test_a_well_typed_command_is_valid_or_refused_with_fields_and_reasons(command: c.Command) -> None:
    try:
        validate(command, NOW)
    except InvalidArgument as refusal:
        for violation in refusal.violations:
            assert violation.reason in REASONS
            assert violation.description
            assert violation.field.split(".")[0].split("[")[0] in command.__struct_fields__


def test_every_command_has_a_shape() -> None:
    assert set(SHAPES) == set(c.Command.__subclasses__())


@pytest.mark.parametrize(
    "shape",
    [*(shape for command, shape in SHAPES.items() if command not in OF_THE_ENGINE), *NESTED],
    ids=lambda shape: shape.struct.__name__,
)
def test_no_field_is_without_a_rule(shape: Shape) -> None:
    """Only booleans and enum values, whose types say all, have no rule."""
    free = set(shape.struct.__struct_fields__) - shape.ruled - JUDGED_BY_RELATIONS
    hints = get_type_hints(shape.struct)
    assert [name for name in sorted(free) if not says_all(hints[name])] == []


def says_all(annotation: Any) -> bool:
    if annotation in (bool, type(None), UnsetType) or get_origin(annotation) is Literal:
        return True
    is_union = get_origin(annotation) is Union or type(annotation).__name__ == "UnionType"
    return is_union and all(map(says_all, get_args(annotation)))


def test_all_violations_are_told_at_once_with_their_paths() -> None:
    command = c.CreateSubscription(
        customer="",
        items=(
            c.ItemParams(price="price_1"),
            c.ItemParams(price="price_2", quantity=-1),
            c.ItemParams(price="", metadata={"": "x"}),
        ),
        trial_period_days=0,
        description="x" * 501,
    )
    with pytest.raises(InvalidArgument) as refused:
        validate(command, NOW)
    assert [(violation.field, violation.reason) for violation in refused.value.violations] == [
        ("customer", "parameter_missing"),
        ("items[1].quantity", "parameter_invalid_integer"),
        ("items[2].price", "parameter_missing"),
        ("items[2].metadata", "metadata_invalid"),
        ("trial_period_days", "parameter_invalid_integer"),
        ("description", "parameter_invalid"),
    ]


def test_what_cannot_be_cleared_is_refused_by_its_type() -> None:
    command = msgspec.convert({"id": "prod_1"}, c.UpdateProduct)
    cleared: Any = msgspec.structs.replace(command, name=None, active=None, description=None)
    with pytest.raises(InvalidArgument) as refused:
        validate(cleared, NOW)
    assert [violation.field for violation in refused.value.violations] == ["name", "active"]
    assert refused.value.reason == "parameter_invalid_empty"


def test_a_table_of_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(AssertionError, match="has no field colour"):
        Shape(c.CreateProduct, {"colour": lambda value, field, findings: None})


def test_the_engine_s_own_commands_obey_no_rules() -> None:
    assert [SHAPES[command].ruled for command in OF_THE_ENGINE] == [frozenset(), frozenset()]


KNOWN = frozenset({"invoices:read", "invoices:write"})


@pytest.mark.parametrize(
    ("name", "scopes", "field", "reason"),
    [
        ("", ("invoices:read",), "name", "parameter_missing"),
        ("x" * 251, ("invoices:read",), "name", "parameter_invalid"),
        ("reporting", (), "scopes", "parameter_missing"),
        ("reporting", ("invoices:read", "invoices:pay"), "scopes[1]", "parameter_invalid"),
        ("reporting", ("invoices:read", "invoices:read"), "scopes[1]", "parameters_exclusive"),
    ],
)
def test_api_keys_that_are_refused(name: str, scopes: tuple[str, ...], field: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_api_key(name, scopes, KNOWN)
    assert (refused.value.field, refused.value.reason) == (field, reason)


@pytest.mark.parametrize("scopes", [("*",), ("invoices:read", "invoices:write")])
def test_api_keys_with_known_scopes_are_fine(scopes: tuple[str, ...]) -> None:
    check_api_key("reporting", scopes, KNOWN)
