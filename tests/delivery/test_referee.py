"""What the referee of durable consumers calls broken, told moment by moment."""

from __future__ import annotations

from tests.delivery.referee import Referee


def referee() -> Referee:
    return Referee({1: "cus_1", 2: "cus_1", 3: "cus_2"}, held_seconds=3)


def test_an_event_taken_back_brings_back_the_fresh_ones_behind_it() -> None:
    judge = referee()
    judge.delivered("a", 1, now=0.0)
    judge.delivered("a", 2, now=2.9)
    judge.delivered("b", 1, now=3.0)
    judge.delivered("b", 2, now=3.0)
    assert not judge.violations


def test_an_event_may_not_be_with_two() -> None:
    judge = referee()
    judge.delivered("a", 1, now=0.0)
    judge.delivered("b", 1, now=2.9)
    assert [violation.problem for violation in judge.violations] == ["is with a"]


def test_nobody_is_given_what_comes_behind_somebody_elses_event() -> None:
    judge = referee()
    judge.delivered("a", 1, now=0.0)
    judge.delivered("b", 3, now=1.0)
    assert not judge.violations
    judge.delivered("b", 2, now=1.0)
    assert [(violation.earlier, violation.problem) for violation in judge.violations] == [
        (1, "was passed over"),
        (1, "is with a"),
    ]


def test_who_hears_late_of_what_was_given_on_since_breaks_nothing() -> None:
    judge = referee()
    judge.delivered("b", 1, now=3.0)
    judge.delivered("a", 1, now=3.0)
    assert not judge.violations


def test_what_a_connection_has_let_go_is_free_from_then_on() -> None:
    judge = Referee({1: "cus_1", 2: "cus_1"}, held_seconds=3, let_go=lambda *told: told == ("a", 1, 0.0, 1.1))
    judge.delivered("a", 1, now=0.0)
    judge.delivered("b", 1, now=1.1)
    assert not judge.violations
    judge.delivered("c", 1, now=1.2)
    assert [violation.problem for violation in judge.violations] == ["is with a", "is with b"]
