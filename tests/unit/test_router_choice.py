"""Which endpoint is called next and why, with values only."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from policy.breaker import NEW, Breaker
from schemas.records import EndpointRecord
from tests.router_support import endpoint
from tests.state_support import FakeClock
from workers.router.app import make_pools
from workers.router.choice import RECORDED, Absent, Place, choose, standing, usable_slots
from workers.router.pools import Pools
from workers.router.rules import ERRANDS, Seat
from workers.router.settings import RouterSettings
from workers.router.strategies import STRATEGIES
from workers.router.strategies.candidate import Draw

NOW, SLOW_S = 1000.0, 10.0
NOBODY: frozenset[str] = frozenset()


def place(name: str, *, slots: int = 2, up: bool = True, open_for: float = 0.0, **figures: float) -> Place:
    """An endpoint whose breaker is open for so many more seconds; 0 = closed, below 0 = half open."""
    found = Place(endpoint=endpoint(name, slots=slots, up=up), limit=slots)
    found.set_breaker(Breaker(failures=5, opens=1, until_ms=round((NOW + open_for) * 1000)) if open_for else NEW)
    for field, value in figures.items():
        setattr(found, field, value)
    return found


def chosen(places: Sequence[Place], tried: frozenset[str] = NOBODY) -> str | Absent:
    found = choose(places, tried, Draw(0, 0.0, NOW), SLOW_S, STRATEGIES["least_inflight"])
    return found.name if isinstance(found, Place) else found


def test_an_endpoint_is_chosen_among_those_that_are_up_untried_and_free() -> None:
    places = [place("e1", in_use=2), place("e2"), place("e3", in_use=1), place("down", up=False)]
    assert chosen(places, frozenset({"e2"})) == "e3"


def test_a_full_pool_is_busy_and_an_empty_one_has_none() -> None:
    assert chosen([place("e1", in_use=2), place("e2", in_use=3)]) is Absent.busy
    assert chosen([]) is Absent.none
    assert chosen([place("e1")], frozenset({"e1"})) is Absent.none
    assert chosen([place("down", up=False)]) is Absent.none


def test_one_that_rests_or_is_silent_for_long_is_taken_only_if_there_is_no_other() -> None:
    resting, silent = place("e1", rest_until=NOW + 1), place("e1", in_use=1, waiting_since=NOW - SLOW_S - 1)
    for one in (resting, silent):
        assert chosen([one, place("e2", in_use=1)]) == "e2"
        assert chosen([one, place("e2", in_use=2)]) == "e1"
    assert chosen([place("e1", in_use=1, waiting_since=NOW - SLOW_S + 1), place("e2", in_use=1)]) == "e1"


def test_one_that_is_left_out_gets_nothing_while_another_is_not() -> None:
    assert chosen([place("e1", open_for=9), place("e2", in_use=1)]) == "e2"
    assert chosen([place("e1", open_for=9), place("e2", in_use=2)]) is Absent.busy


def test_the_last_way_of_a_pool_is_never_closed() -> None:
    assert chosen([place("e1", open_for=9)]) == "e1"
    assert chosen([place("e1", open_for=9), place("e2", open_for=3), place("e3", open_for=20)]) == "e2"
    assert chosen([place("e1", open_for=9), place("e2", open_for=3)], frozenset({"e2"})) == "e1"


def test_a_run_in_hand_borrows_a_slot_where_this_process_has_none() -> None:
    """Its seat may be too small for the pool by now, or it tried all that it has slots of: it would wait for ever."""
    assert chosen([place("e1", slots=0, in_use=1), place("e2", slots=0)]) == "e2"
    assert chosen([place("e1", slots=0, in_use=1)]) is Absent.busy, "one at a time"
    assert chosen([place("e1", slots=1), place("e2", slots=0)], frozenset({"e1"})) == "e2"
    assert chosen([place("e1", slots=1, in_use=1), place("e2", slots=0)]) is Absent.busy
    assert usable_slots([place("e1", slots=0)], NOW) == 0, "nothing is borrowed beforehand"


def test_a_half_open_one_is_chosen_as_any_other() -> None:
    assert chosen([place("e1", open_for=-1), place("e2", in_use=1)]) == "e1"


@given(
    st.lists(
        st.builds(
            place,
            st.sampled_from("abcdefgh"),
            slots=st.integers(0, 3),
            up=st.booleans(),
            open_for=st.sampled_from((-5.0, 0.0, 5.0)),
            in_use=st.integers(0, 3),
            rest_until=st.sampled_from((0.0, NOW + 5)),
            waiting_since=st.sampled_from((NOW, NOW - 60)),
        ),
        max_size=8,
        unique_by=lambda one: one.name,
    ),
    st.frozensets(st.sampled_from("abcdefgh"), max_size=3),
    st.sampled_from(sorted(STRATEGIES)),
)
def test_what_is_chosen_is_never_unfit_while_a_fit_one_is_there(
    places: list[Place], tried: frozenset[str], strategy: str
) -> None:
    found = choose(places, tried, Draw(3, 0.5, NOW), SLOW_S, STRATEGIES[strategy])
    stands = {one.name: standing(one, tried, NOW, SLOW_S) for one in places}
    well = {"fit", "half_open"}
    if isinstance(found, Place):
        assert stands[found.name] not in ("down", "tried")
        assert stands[found.name] != "full" or found.limit == found.in_use == 0, "borrowed"
        if well & set(stands.values()):
            assert stands[found.name] in well
        if stands[found.name] == "open":
            assert not {"slow", "resting", "full"} & set(stands.values()) or found.in_use < found.limit
    elif found is Absent.none:
        assert set(stands.values()) <= {"down", "tried"}
    else:
        assert not {"fit", "half_open", "slow", "resting"} & set(stands.values())


def test_slots_are_those_of_endpoints_that_can_serve() -> None:
    places = [place("e1", in_use=1), place("e2", open_for=9), place("e3", up=False), place("e4", open_for=-1)]
    assert usable_slots(places, NOW) == 3, "two of e1, the probe of e4"
    assert usable_slots([place("e1", open_for=9), place("e2", open_for=20, slots=7)], NOW) == 2
    assert usable_slots([place("e1", up=False)], NOW) is None


def test_what_still_runs_at_an_endpoint_that_gets_nothing_more_takes_no_slot_of_another() -> None:
    """Else a run would wait although another endpoint is free, until the last answer of the first has ended."""
    sound = place("e1", in_use=1)
    assert usable_slots([sound, place("e2", open_for=9, in_use=2)], NOW) == 2 + 2
    assert usable_slots([sound, place("e2", up=False, in_use=2)], NOW) == 2 + 2
    assert usable_slots([place("e1", open_for=9), place("e2", open_for=20, in_use=1)], NOW) == 2 + 1


def test_a_half_open_endpoint_gets_its_probe_beside_what_it_has() -> None:
    assert usable_slots([place("e1", slots=8, open_for=-1, in_use=3)], NOW) == 4
    assert usable_slots([place("e1", slots=3, open_for=-1, in_use=3)], NOW) == 3


# --- the slots of a process ---------------------------------------------------------------------------------------


class Chance:
    """Always the same."""

    def bytes(self, count: int) -> bytes:
        return bytes(count)

    def uniform(self, low: float, high: float) -> float:
        return high


def pools(settings: RouterSettings | None = None) -> Pools:
    return make_pools(settings or RouterSettings(), FakeClock(), Chance())


def pick(slots: Pools, endpoints: Sequence[EndpointRecord]) -> Place:
    found = slots.pick("pool", endpoints, NOBODY)
    assert isinstance(found, Place)
    return found


def test_a_seat_has_its_share_and_may_change_it() -> None:
    slots, endpoints = pools(), tuple(endpoint(f"e{n}", slots=3) for n in range(40))
    total = 0
    for index in range(2):
        slots.seat = Seat(index, 2)
        total += slots.capacity("pool", endpoints)
        assert 40 < slots.capacity("pool", endpoints) < 80, "what does not divide is spread over the seats"
    assert total == 120
    slots.seat = Seat()
    assert slots.capacity("pool", endpoints) == 120


def test_a_pool_that_nothing_serves_has_places_for_errands() -> None:
    assert pools().capacity("pool", (endpoint("down", up=False),)) == pools().capacity("pool", ()) == ERRANDS


def test_a_pool_whose_endpoints_left_has_places_beside_what_still_runs_there() -> None:
    slots, gone, other = pools(), endpoint("e1"), endpoint("e2", slots=2)
    with slots.using(pick(slots, (gone,))):
        assert slots.capacity("pool", (other,)) == 3, "one that left holds no slot of one that is there"
        assert slots.capacity("pool", ()) == ERRANDS + 1
        assert slots.capacity("pool", (endpoint("e1", up=False),)) == ERRANDS + 1
    assert slots.capacity("pool", (other,)) == 2


def test_the_record_says_what_was_chosen_from_and_stays_small() -> None:
    slots, endpoints = pools(RouterSettings(strategy="cost")), tuple(endpoint(f"e{n}", slots=n % 3) for n in range(99))
    chosen = slots.places("pool", endpoints)[50]
    choice = slots.explain("pool", endpoints, NOBODY, chosen)
    assert (choice.pool, choice.strategy, choice.of, len(choice.seen)) == ("pool", "cost", 99, RECORDED)
    assert [(one.endpoint, one.state) for one in choice.seen[:3]] == [("e50", "fit"), ("e0", "full"), ("e1", "fit")]
    assert len(slots.explain("pool", endpoints, NOBODY, chosen, 99).seen) == 99


def test_what_is_known_of_an_endpoint_outlives_a_change_of_the_catalog() -> None:
    slots = pools()
    place = pick(slots, (endpoint("e1"),))
    slots.measured(place, 0.5)
    assert pick(slots, (endpoint("e1", slots=99),)).ttft_s == 0.5
    pick(slots, (endpoint("e2"),))
    assert pick(slots, (endpoint("e1"),)).ttft_s == 0.0, "it had left"


def test_an_endpoint_that_left_is_known_while_it_has_requests_and_no_longer() -> None:
    slots, gone = pools(), endpoint("e1")
    with slots.using(pick(slots, (gone,))):
        pick(slots, (endpoint("e2"),))
        assert slots.used() == {"e1": 1}
    assert slots.used() == {}
    pick(slots, (endpoint("e2"), endpoint("e3")))
    assert {place.name for place in slots.all()} == {"e2", "e3"}


def test_a_call_is_silent_until_its_first_byte() -> None:
    clock = FakeClock()
    slots = make_pools(RouterSettings(), clock, Chance())
    place = pick(slots, (endpoint("e1"),))
    with slots.using(place) as one, slots.using(place) as other:
        clock.advance(2.0)
        assert place.ttft(clock.monotonic()) == 2.0
        one.answered()
        other.answered()
        one.answered()
        assert place.waiting_since > clock.monotonic()
    assert slots.handed_in()["e1"].mean_s == 2.0
    assert slots.handed_in() == {} == slots.used()


def test_a_chance_of_one_is_still_below_one() -> None:
    for name in STRATEGIES:
        slots = pools(RouterSettings(strategy=name))
        pick(slots, (endpoint("e1"), endpoint("e2")))
