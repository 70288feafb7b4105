"""The server under everything comes back without its last second: what clients see, and what is billed.

The long form, which also waits for what came back from the past: `python -m bench.failover`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import failover
from bench.failover import Row, play
from tests.conftest import short_folder
from tests.e2e.house import Engine, scripted_engine
from tests.losses import losing_house, replicated_house

#: What a client may be told whose request or answer was lost, or who came while the server was away.
CODED = {"store_unavailable", "upstream_interrupted", "deadline_exceeded"}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with scripted_engine("--ttft-ms", "10", "--itl-ms", str(failover.ITL_MS)) as engine:
        yield engine


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


def as_promised(row: Row) -> bool:
    """Answers before and after, coded errors between; nothing silent, mixed, forgotten or billed beyond the engine."""
    counts = (row.silent, row.doubled, row.overbilled, row.unrecorded)
    return counts == (0, 0, 0, 0) and row.coded.keys() <= CODED and row.completed > 0 and row.served_s < 30


def test_last_second_of_the_append_only_file_may_be_lost(engine: Engine, folder: Path) -> None:
    with losing_house(folder, engine) as losing:
        row = asyncio.run(play("window", losing.house, losing.key, engine, losing.blow, patient=False))
        assert losing.lost > 0 and row.coded, row
        assert as_promised(row), row


def test_replica_that_lagged_may_be_promoted(engine: Engine, folder: Path) -> None:
    with replicated_house(folder, engine) as pair:
        row = asyncio.run(play("failover", pair.house, pair.key, engine, pair.blow, patient=False))
        assert row.coded and as_promised(row), row
