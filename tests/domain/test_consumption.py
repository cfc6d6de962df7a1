"""What a consumer's connection has in hand: lanes in order, tries, parking, shards that come and go."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from billing_server.domain.consumer import SHARDS, Declined, Extended, ShardState, Step, shard_of, subject_of
from billing_server.domain.consumption import Entry, Hand

ACK_SECONDS = 30
TRIES_MAX = 3


class Logged(msgspec.Struct, frozen=True):
    """An event of a customer, or of an object without one."""

    position: int
    customer: str | None
    object_id: str


def logged(*subjects: str, before: int = 0) -> list[Logged]:
    """Events of these customers."""
    return [Logged(position, subject, "in_1") for position, subject in enumerate(subjects, before + 1)]


def whole_hand(position: int = 0) -> Hand:
    """A connection that has all shards."""
    hand = Hand(tries_max=TRIES_MAX, ack_seconds=ACK_SECONDS)
    for shard in range(SHARDS):
        hand.take(ShardState(shard=shard, position=position, floor=position), {}, now=0, real_now=0)
    return hand


def admit(hand: Hand, events: list[Logged], now: float = 0) -> list[int]:
    """Read events; return which are delivered at once."""
    reading = hand.reading()
    assert reading is not None
    return [event.position for event in hand.admit(reading, events, events[-1].position, now)]


def again(hand: Hand, now: float, limit: int = 100) -> list[int]:
    """Deliver what is due again."""
    return [entry.position for entry in hand.deliver_again(hand.due(now, limit), now)]


def handed_over(hand: Hand, log: list[Logged], now: float, real_now: int) -> Hand:
    """Another connection that takes all that is stored of this one."""
    other = Hand(tries_max=TRIES_MAX, ack_seconds=ACK_SECONDS)
    subjects = {event.position: subject_of(event.customer, event.object_id) for event in log}
    for shard in list(hand.shards.values()):
        state = hand.to_store(shard, now=now, real_now=real_now)
        stored = msgspec.json.decode(msgspec.json.encode(state), type=ShardState)
        other.take(stored, subjects, now=now, real_now=real_now)
    return other


def test_every_subject_has_one_shard_that_never_changes() -> None:
    assert [shard_of(subject) for subject in ("cus_a", "cus_b", "prod_1")] == [8, 18, 25]
    assert {shard_of(f"cus_{number}") for number in range(1_000)} == set(range(SHARDS))
    assert subject_of(None, "prod_1") == "prod_1"
    assert subject_of("cus_a", "in_1") == "cus_a"


def test_a_declined_event_takes_those_behind_it_back() -> None:
    hand = whole_hand()
    assert admit(hand, logged("a", "b", "a", "a")) == [1, 2, 3, 4]
    hand.apply(Step(declined=[Declined([3], 10, "no")]), now=5)
    assert (hand.in_flight, hand.held) == (2, 2)
    assert admit(hand, logged("a", "b", before=4), now=6) == [6]
    assert again(hand, now=14) == []
    assert hand.next_moment(may_deliver=True) == 15
    assert again(hand, now=15) == [3, 4, 5]
    assert hand.outcomes == {"delivered": 8, "declined": 1, "redelivered": 3}


def test_only_tries_of_its_own_count_and_the_last_one_parks() -> None:
    hand = whole_hand()
    admit(hand, logged("a", "a"))
    for now in (1, 2):
        hand.apply(Step(declined=[Declined([1], 0, "no")]), now=now)
        assert again(hand, now=now + 1) == [1, 2]
    hand.apply(Step(declined=[Declined([1], 0, "x" * 1_000)]), now=3)
    (shard,) = [shard for shard in hand.shards.values() if shard.parked]
    (parked,) = shard.parked
    assert (parked.position, parked.tries, len(parked.reason)) == (1, 3, 500)
    assert (hand.in_flight, hand.held) == (1, 0)
    assert shard.entries[2].tries == 0


def test_without_room_for_parked_events_they_are_tried_again_later() -> None:
    hand = whole_hand()
    hand.tries_max, hand.parking_full = 1, True
    admit(hand, logged("a"))
    hand.apply(Step(declined=[Declined([1], 0, "no")]), now=1)
    assert again(hand, now=60) == []
    assert again(hand, now=61) == [1]


def test_deadlines_pass_and_are_extended() -> None:
    hand = whole_hand()
    admit(hand, logged("a", "b", "c", "d"), now=100)
    hand.apply(Step(extended=Extended([1, 9], 50)), now=120)
    hand.apply(Step(acknowledged=[4]), now=120)
    assert hand.next_moment(may_deliver=True) == 130
    assert hand.expired(now=129) == []
    expired = hand.expired(now=130)
    assert [entry.position for entry in expired] == [2, 3]
    for entry in expired:
        hand.fail(entry, 0, "late", now=130)
    assert again(hand, now=130) == [2, 3]
    assert [entry.position for entry in hand.expired(now=170)] == [1, 2, 3]
    hand.apply(Step(extended=Extended(None, None)), now=170)
    assert hand.expired(now=199) == []


def test_what_is_acknowledged_through_a_position_was_delivered() -> None:
    hand = whole_hand()
    admit(hand, logged("a", "a", "b", "b"))
    hand.apply(Step(declined=[Declined([1], 0, "no")]), now=0)
    hand.apply(Step(through=3), now=0)
    assert (hand.in_flight, hand.held) == (1, 2)
    assert again(hand, now=10) == [1, 2]
    hand.apply(Step(through=4), now=10)
    assert (hand.in_flight, hand.held, hand.floor) == (0, 0, 4)


def test_an_adopted_event_does_not_hold_up_its_customer() -> None:
    hand = whole_hand(position=5)
    hand.adopt(shard_of("a"), 2)
    assert hand.floor == 1
    assert admit(hand, logged("a", before=5)) == [6]
    assert again(hand, now=0) == [2]
    hand.apply(Step(acknowledged=[2, 6]), now=0)
    assert hand.floor == 6


def test_a_shard_that_leaves_takes_no_more_and_goes_when_nothing_is_in_flight() -> None:
    hand = whole_hand()
    log = logged(*(f"cus_{number}" for number in range(200)))
    admit(hand, log)
    hand.rebalance(SHARDS - 1)
    (leaving,) = [shard for shard in hand.shards.values() if shard.leaving]
    assert hand.ready_to_leave == []
    mine = [event for event in log if shard_of(event.customer or "") == leaving.number]
    assert mine
    before = leaving.position
    more = [Logged(event.position + 200, event.customer, "in_1") for event in mine]
    reading = hand.reading()
    assert reading is not None
    assert leaving not in reading.shards
    assert hand.admit(reading, more, 400, 0) == []
    assert leaving.position == before
    hand.apply(Step(declined=[Declined([mine[0].position], 0, "no")]), now=0)
    hand.apply(Step(acknowledged=[event.position for event in mine[1:]]), now=0)
    assert hand.ready_to_leave == [leaving.number]
    assert again(hand, now=10) == []
    hand.rebalance(SHARDS)
    assert hand.ready_to_leave == []
    assert again(hand, now=10) == [mine[0].position]


def test_shards_furthest_behind_are_read_first_and_only_as_far_as_the_others() -> None:
    hand = Hand(tries_max=TRIES_MAX, ack_seconds=ACK_SECONDS)
    for shard, position in ((1, 10), (2, 5), (3, 5), (4, 20)):
        hand.take(ShardState(shard=shard, position=position, floor=position), {}, now=0, real_now=0)
    for expected in (((2, 3), 5, 10), ((1, 2, 3), 10, 20), ((1, 2, 3, 4), 20, None)):
        reading = hand.reading()
        assert reading is not None
        assert (tuple(sorted(reading.numbers)), reading.after, reading.until) == expected
        assert hand.admit(reading, list[Logged](), reading.until or 30, 0) == []


def test_a_shard_that_was_lost_while_it_was_read_gets_nothing() -> None:
    hand = whole_hand()
    reading = hand.reading()
    assert reading is not None
    number = shard_of("a")
    hand.drop(number)
    hand.take(ShardState(shard=number, position=7, floor=7), {}, now=0, real_now=0)
    assert [event.position for event in hand.admit(reading, logged("a", "b"), 2, 0)] == [2]
    assert hand.shards[number].position == 7


def test_what_waits_when_it_is_handed_over_waits_on_in_real_time() -> None:
    hand = whole_hand()
    log = logged("a", "a")
    admit(hand, log)
    hand.apply(Step(declined=[Declined([1], 100, "no")]), now=0)
    other = handed_over(hand, log, now=40, real_now=1_000)
    assert again(other, now=100) == []
    assert again(other, now=101) == [1, 2]


@given(st.integers(1, 100))
def test_shares_cover_all_shards(connections: int) -> None:
    hand = whole_hand()
    shards_max = -(-SHARDS // connections)
    hand.rebalance(shards_max)
    assert sum(not shard.leaving for shard in hand.shards.values()) == shards_max


class Consuming(RuleBasedStateMachine):
    """A log that grows, and connections that take over from each other; a plain model says what may come next.

    `settled` is what was acknowledged or parked for good: whatever was not, must come again, in each customer's order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Logged] = []
        self.hand = whole_hand()
        self.now = 0.0
        self.settled: set[int] = set()
        self.flying: dict[int, None] = {}
        self.parked: set[int] = set()

    def _check_given(self, positions: list[int]) -> None:
        for position in positions:
            customer = self.log[position - 1].customer
            for event in self.log[: position - 1]:
                if event.customer == customer:
                    assert event.position in self.settled or event.position in self.flying
            assert position not in self.settled
            assert position not in self.flying
            self.flying[position] = None

    def _note_parked(self) -> None:
        for shard in self.hand.shards.values():
            for parked in shard.parked:
                assert parked.tries == TRIES_MAX
                self.settled.add(parked.position)
                self.parked.add(parked.position)
                self.flying.pop(parked.position, None)
            shard.parked = []

    def _take_back(self, entry_position: int) -> None:
        customer = self.log[entry_position - 1].customer
        for position in list(self.flying):
            if position >= entry_position and self.log[position - 1].customer == customer:
                del self.flying[position]

    @rule(subjects=st.lists(st.sampled_from("abcd"), min_size=1, max_size=6))
    def append(self, subjects: list[str]) -> None:
        self.log += logged(*subjects, before=len(self.log))

    @rule(limit=st.integers(1, 5))
    def read(self, limit: int) -> None:
        reading = self.hand.reading()
        assert reading is not None
        until = len(self.log) if reading.until is None else reading.until
        numbers = set(reading.numbers)
        found = [e for e in self.log[reading.after : until] if shard_of(e.customer or "") in numbers][:limit]
        scanned_to = found[-1].position if len(found) == limit else until
        self._check_given([e.position for e in self.hand.admit(reading, found, scanned_to, self.now)])

    @rule(limit=st.integers(1, 5))
    def redeliver(self, limit: int) -> None:
        self._check_given(again(self.hand, self.now, limit))

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        position = data.draw(st.sampled_from(list(self.flying)))
        self.hand.apply(Step(acknowledged=[position]), self.now)
        self.settled.add(position)
        del self.flying[position]

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), delay=st.integers(0, 3))
    def decline(self, data: st.DataObject, delay: int) -> None:
        position = data.draw(st.sampled_from(list(self.flying)))
        parks = self._entry(position).tries == TRIES_MAX - 1
        self.hand.apply(Step(declined=[Declined([position], delay, "no")]), self.now)
        if parks:
            self._note_parked()
            assert position in self.parked
        else:
            self._take_back(position)

    def _entry(self, position: int) -> Entry:
        return next(s.entries[position] for s in self.hand.shards.values() if position in s.entries)

    @rule(seconds=st.sampled_from([1, 5, ACK_SECONDS]))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        for entry in self.hand.expired(self.now):
            if entry.flying:
                parks = entry.tries == TRIES_MAX - 1
                self.hand.fail(entry, 0, "late", self.now)
                if not parks:
                    self._take_back(entry.position)
        self._note_parked()

    @rule()
    def hand_over(self) -> None:
        self.hand = handed_over(self.hand, self.log, self.now, 1_000)
        self.flying.clear()

    @invariant()
    def counts_agree(self) -> None:
        assert self.hand.in_flight == len(self.flying)
        assert {s for shard in self.hand.shards.values() for s in shard.entries} >= set(self.flying)

    @invariant()
    def the_floor_is_settled(self) -> None:
        floor = self.hand.floor
        assert floor is not None
        assert set(range(1, floor + 1)) <= self.settled

    def teardown(self) -> None:
        """Go on until nothing is left: all that was ever logged comes."""
        for _ in range(3 * len(self.log) + 10):
            self.now += 5
            self.redeliver(100)
            self.read(100)
            for position in list(self.flying):
                self.hand.apply(Step(acknowledged=[position]), self.now)
                self.settled.add(position)
                del self.flying[position]
        assert self.settled == set(range(1, len(self.log) + 1))
        assert (self.hand.in_flight, self.hand.held, self.hand.floor) == (0, 0, len(self.log))


TestConsuming = Consuming.TestCase
