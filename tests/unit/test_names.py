"""Run ids and the names of keys: the partition is in the id, tags spread evenly, every key of a run shares a slot."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.ids import MAX_PARTITIONS, SystemRandom, is_run_id, mint_run_id, partition_of
from runtime.names import SLOTS, lane_key, prefix, prefix_of, push_channel, slot_of, starts_key, stream_prefix, tag
from tests.run_support import CLOCK

_partitions = st.integers(0, MAX_PARTITIONS - 1)

#: Never changed: the keys of stored runs depend on them.
_TAGS = ["0.178", "1.8", "2.50", "3.73", "4.170", "5.23"]


class _Dice:
    """Chance that a test chooses."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def bytes(self, count: int) -> bytes:
        return (self._value * count)[:count]

    def uniform(self, low: float, high: float) -> float:
        return low


class _Then:
    """A clock that stands still."""

    def __init__(self, ms: int) -> None:
        self._ms = ms

    def now_ms(self) -> int:
        return self._ms

    def monotonic(self) -> float:
        return self._ms / 1000

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits here")


@given(_partitions, st.integers(0, 2**48 - 1), st.binary(min_size=1, max_size=8))
def test_run_id_is_a_uuid7_that_carries_its_partition(partition: int, ms: int, noise: bytes) -> None:
    run = mint_run_id(_Then(ms), _Dice(noise), partition)
    assert is_run_id(run) and partition_of(run) == partition
    assert int(run.replace("-", "")[:12], 16) == ms
    assert run[14] == "7" and run[19] in "89ab"


@given(st.text(max_size=40))
def test_other_texts_are_no_run_ids(text: str) -> None:
    if not is_run_id(text):
        with pytest.raises(ValueError, match="not a run id"):
            partition_of(text)


@pytest.mark.parametrize("partition", [-1, MAX_PARTITIONS])
def test_partition_outside_the_range_is_refused(partition: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        mint_run_id(CLOCK, SystemRandom(), partition)


def test_ids_differ() -> None:
    assert len({mint_run_id(CLOCK, SystemRandom(), 0) for _ in range(1_000)}) == 1_000


def test_upper_case_and_trailing_line_are_no_run_ids() -> None:
    run = mint_run_id(CLOCK, SystemRandom(), 2748)
    assert "abc" in run
    assert not is_run_id(run.upper()) and not is_run_id(run + "\n")


def test_slot_is_that_of_the_cluster_specification() -> None:
    assert slot_of("123456789") == 0x31C3  # the specification's own example of its CRC16


def test_tags_never_change() -> None:
    assert [tag(n) for n in range(6)] == _TAGS


@pytest.mark.parametrize("partitions", [1, 2, 4, 8, 16, 32, 64])
def test_partitions_spread_evenly_over_the_slots(partitions: int) -> None:
    ranges = Counter(slot_of(tag(n)) * partitions // SLOTS for n in range(partitions))
    assert ranges == dict.fromkeys(range(partitions), 1)


def test_later_partitions_fill_the_ranges_again_and_tags_are_unique() -> None:
    tags = [tag(n) for n in range(512)]
    assert len(set(tags)) == 512
    assert set(Counter(slot_of(each) * 64 // SLOTS for each in tags).values()) == {8}


@given(_partitions)
def test_every_key_of_a_run_shares_a_slot(partition: int) -> None:
    p = prefix_of(mint_run_id(CLOCK, SystemRandom(), partition))
    assert p == prefix(partition)
    keys = [lane_key(p, "pool", "batch"), push_channel(p, "door"), f"{p}:live", starts_key(f"{p}:requests", "rules")]
    assert {key[key.index("{") + 1 : key.index("}")] for key in keys} == {tag(partition)}


@pytest.mark.parametrize("pool", ["", "a b", "a{b}", "a\n", "x" * 129, "ü"])
def test_pool_names_cannot_break_a_key(pool: str) -> None:
    with pytest.raises(ValueError, match="pool name"):
        lane_key(prefix(0), pool, "interactive")


@pytest.mark.parametrize("pool", ["gpt-4o", "org/model:7b", "a.b_c@d+e"])
def test_usual_model_names_are_pool_names(pool: str) -> None:
    assert lane_key("{0}", pool, "batch") == f"{{0}}:cleared:{pool}:batch"


def test_helper_keys_of_plain_streams_share_the_streams_slot() -> None:
    assert stream_prefix("commands") == "{commands}:"
    assert slot_of("commands") == slot_of(starts_key("commands", "g")[1 : len("commands") + 1])
