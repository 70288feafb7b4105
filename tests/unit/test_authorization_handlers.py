"""The handler over the memory twins: who is let in, who is told what, and what is held for whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from msgspec import structs

from schemas.errors import Unavailable
from schemas.events import RequestAccepted, RequestRefused
from schemas.outcomes import Again, Decided, Outcome
from schemas.ports import Limits, Reservation, Reserved
from schemas.records import KeyRecord, ModelRecord
from schemas.routes import MODERATIONS, MODERATIONS_POOL
from schemas.verdicts import Verdict
from state.memory import MemoryCatalog, MemoryKeys, MemoryLimits
from tests.authorization_support import DEADLINE_MS, MODEL, accepted, delivery, key
from tests.state_support import FakeClock
from workers.authorization.handlers import Authorization
from workers.authorization.settings import AuthorizationSettings


@dataclass
class Counting:
    """Limits that remember what was asked of them, and can be away for a tenant."""

    inner: Limits
    calls: list[list[Reservation]] = field(default_factory=list)
    away: str = ""

    async def reserve(self, wanted: Sequence[Reservation]) -> Sequence[Reserved]:
        self.calls.append(list(wanted))
        if any(item.tenant == self.away for item in wanted):
            raise Unavailable("that slot is away")
        return await self.inner.reserve(wanted)

    async def settle(self, tenant: str, run: str, scopes: Sequence[str]) -> None:
        await self.inner.settle(tenant, run, scopes)


class PartlyAway(MemoryKeys):
    """Keys of which one cannot be read now."""

    def __init__(self, records: Sequence[KeyRecord], cold: str) -> None:
        super().__init__(records)
        self._cold = cold

    async def find(self, key_id: str) -> KeyRecord | None:
        if key_id == self._cold:
            raise Unavailable("PostgreSQL is away")
        return await super().find(key_id)


class CatalogAway(MemoryCatalog):
    """A catalog that was never read and cannot be now."""

    async def model(self, name: str) -> ModelRecord | None:
        raise Unavailable("Redis is away")


@dataclass
class Room:
    """The handler with its surroundings."""

    handler: Authorization
    limits: Counting

    async def answer(self, *events: RequestAccepted) -> list[Outcome]:
        return list(await self.handler.handle([delivery(event) for event in events]))

    async def verdicts(self, *events: RequestAccepted) -> list[Verdict]:
        outcomes = await self.answer(*events)
        for i, outcome in enumerate(outcomes):
            if isinstance(outcome, Again):  # asked once more, as the engine does
                (outcomes[i],) = await self.handler.handle([delivery(events[i], starts=1)])
        return [decided(outcome).verdict for outcome in outcomes]


def room(*keys: KeyRecord, catalog: MemoryCatalog | None = None, found: MemoryKeys | None = None) -> Room:
    clock = FakeClock()
    limits = Counting(MemoryLimits(clock))
    books = catalog or MemoryCatalog([MODEL, ModelRecord(name="secret", pool="p")])
    handler = Authorization(found or MemoryKeys(keys), books, limits, clock, AuthorizationSettings())
    return Room(handler, limits)


def decided(outcome: Outcome) -> Decided:
    assert isinstance(outcome, Decided)
    return outcome


def code(verdict: Verdict) -> str:
    assert verdict.failure is not None
    return verdict.failure.code


async def test_a_good_key_passes_with_a_grant() -> None:
    (verdict,) = await room(key()).verdicts(accepted("run"))
    assert (verdict.run, verdict.family, verdict.outcome) == ("run", "authorization", "pass")
    assert verdict.body_digest == accepted("run").body_digest
    assert verdict.policy == AuthorizationSettings().policy
    assert verdict.grant is not None
    assert (verdict.grant.tenant, verdict.grant.pool, verdict.grant.lane) == ("acme", "gpu-a", "interactive")
    assert verdict.grant.fail == {"rules": "closed"}


async def test_a_refusal_carries_the_fact_that_ends_the_run() -> None:
    (outcome,) = await room().answer(accepted("run"))
    refusal = decided(outcome)
    assert refusal.ending == RequestRefused(run="run", family="authorization", failure=refusal.verdict.failure)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "record",
    [
        None,
        replace(key(), revoked_ms=1),
        replace(key(), expires_ms=1),
        replace(key(), secret_mac="0" * 64),
        replace(key(), mac_kid="k9"),
    ],
)
@pytest.mark.parametrize("model", ["small", "secret", "absent"])
async def test_an_unauthenticated_caller_learns_nothing(record: KeyRecord | None, model: str) -> None:
    reference = (await room().verdicts(accepted("run")))[0]
    (verdict,) = await room(*([record] if record else [])).verdicts(accepted("run", model=model))
    assert code(verdict) == "invalid_api_key"
    assert verdict.failure == reference.failure
    assert verdict.grant is None


async def test_a_key_without_the_scope_is_told_so() -> None:
    (verdict,) = await room(key(scopes=("admin",))).verdicts(accepted("run"))
    assert code(verdict) == "permission_denied"
    assert verdict.grant is not None
    assert (verdict.grant.tenant, verdict.grant.pool, verdict.grant.scopes) == ("acme", "", ())


async def test_a_model_that_is_not_allowed_reads_like_one_that_does_not_exist() -> None:
    only = room(key(models=("small", "absent")))
    forbidden, absent = await only.verdicts(accepted("one", model="secret"), accepted("two", model="absent"))
    assert forbidden.failure is not None
    assert absent.failure is not None
    assert forbidden.failure.message.replace("secret", "absent") == absent.failure.message
    assert replace(forbidden.failure, message="") == replace(absent.failure, message="")


async def test_who_is_refused_reserves_nothing() -> None:
    limited = key(requests_per_minute=1, concurrency=1, models=("small",))
    house = room(limited, key(2, requests_per_minute=1, scopes=("admin",)))
    forged = structs.replace(accepted("forged"), secret_mac="0" * 64)
    refused = await house.verdicts(forged, accepted("model", model="secret"), accepted("scope", 2), accepted("no", 3))
    assert [verdict.outcome for verdict in refused] == ["refuse"] * 4
    assert house.limits.calls == []
    assert [verdict.outcome for verdict in await house.verdicts(accepted("good"))] == ["pass"]


async def test_over_the_limit_is_a_429_with_the_time_to_wait() -> None:
    house = room(key(requests_per_minute=2))
    verdicts = await house.verdicts(*(accepted(f"run{n}") for n in range(3)))
    assert [verdict.outcome for verdict in verdicts] == ["pass", "pass", "refuse"]
    assert code(verdicts[2]) == "rate_limit_exceeded"
    assert verdicts[2].failure is not None
    assert verdicts[2].failure.retry_after_ms == 60_000
    assert verdicts[2].grant is not None and verdicts[0].grant is not None
    assert (verdicts[2].grant.limit_requests, verdicts[2].grant.remaining_requests) == (2, 0)
    assert verdicts[2].grant.scopes == verdicts[0].grant.scopes  # settled, should a second delivery hold something


async def test_a_redelivered_run_gets_the_same_answer_and_no_second_hold() -> None:
    house = room(key(requests_per_minute=1, concurrency=1))
    assert [verdict.outcome for verdict in await house.verdicts(accepted("run"))] == ["pass"]
    again = await house.handler.handle([delivery(accepted("run"), starts=1)])
    assert decided(again[0]).verdict.outcome == "pass"


async def test_a_run_that_was_settled_before_it_is_delivered_again_holds_nothing() -> None:
    house = room(key(concurrency=1))
    (first,) = await house.verdicts(accepted("run"))
    assert first.grant is not None
    await house.limits.settle("acme", "run", first.grant.scopes)
    await house.verdicts(accepted("run"))
    assert [verdict.outcome for verdict in await house.verdicts(accepted("next"))] == ["pass"]


async def test_one_call_reserves_for_a_whole_organization() -> None:
    house = room(key(1, concurrency=9), key(2, concurrency=9), key(3, concurrency=9, tenant="globex"))
    await house.verdicts(accepted("a", 1), accepted("b", 3), accepted("c", 2), accepted("d", 1))
    assert sorted([item.run for item in call] for call in house.limits.calls) == [["a", "c", "d"], ["b"]]
    assert all(item.ttl_ms == DEADLINE_MS + 60_000 for call in house.limits.calls for item in call)


async def test_a_key_without_limits_asks_the_limits_nothing() -> None:
    house = room(key())
    await house.verdicts(accepted("run"))
    assert house.limits.calls == []


async def test_answers_come_in_the_order_of_the_deliveries() -> None:
    house = room(key(1), key(3, concurrency=1, tenant="globex"))
    events = [accepted("a", 3), accepted("b", 2), accepted("c", 1), accepted("d", 3), accepted("e", 1, model="no")]
    verdicts = await house.verdicts(*events)
    assert [(verdict.run, verdict.outcome) for verdict in verdicts] == [
        ("a", "pass"),
        ("b", "refuse"),
        ("c", "pass"),
        ("d", "refuse"),
        ("e", "refuse"),
    ]


async def test_a_run_over_the_concurrency_is_asked_once_more_before_it_is_refused() -> None:
    house = room(key(1, concurrency=1))
    (first, second) = await house.answer(accepted("a", 1), accepted("b", 1))
    assert decided(first).verdict.outcome == "pass" and isinstance(second, Again)
    await house.limits.settle("acme", "a", [f"key:{key(1).key_id}"])
    (verdict,) = await house.verdicts(accepted("b", 1))
    assert verdict.outcome == "pass"


async def test_warm_keys_go_on_while_a_cold_one_waits_for_its_store() -> None:
    house = room(found=PartlyAway([key(1)], key(2).key_id))
    outcomes = await house.answer(accepted("warm", 1), accepted("cold", 2))
    assert decided(outcomes[0]).verdict.outcome == "pass"
    assert isinstance(outcomes[1], Again)


async def test_an_organization_whose_slot_is_away_waits_alone() -> None:
    house = room(key(1, concurrency=1), key(2, concurrency=1, tenant="globex"))
    house.limits.away = "globex"
    outcomes = await house.answer(accepted("a", 1), accepted("b", 2))
    assert decided(outcomes[0]).verdict.outcome == "pass"
    assert isinstance(outcomes[1], Again)


async def test_when_nothing_can_be_answered_the_engine_is_told_that_a_store_is_away() -> None:
    house = room(found=PartlyAway([], key(2).key_id))
    with pytest.raises(Unavailable):
        await house.answer(accepted("cold", 2))


async def test_a_catalog_that_is_away_delays_the_good_and_refuses_the_bad_at_once() -> None:
    house = room(key(1), key(2, scopes=("admin",)), catalog=CatalogAway())
    outcomes = await house.answer(accepted("good", 1), accepted("scope", 2), accepted("nobody", 3))
    assert isinstance(outcomes[0], Again)
    assert [code(decided(outcome).verdict) for outcome in outcomes[1:]] == ["permission_denied", "invalid_api_key"]


async def test_a_moderation_needs_no_catalog_and_is_held_to_the_keys_limits() -> None:
    house = room(key(1, models=("other",), requests_per_minute=1), catalog=CatalogAway())
    runs = [structs.replace(accepted(name, 1, model="moderations"), route=MODERATIONS) for name in ("first", "second")]
    first, second = await house.verdicts(*runs)
    assert first.grant is not None and first.grant.pool == MODERATIONS_POOL and first.grant.scopes
    assert code(second) == "rate_limit_exceeded"


async def test_the_verdict_never_repeats_the_credential() -> None:
    for verdict in await room(key()).verdicts(accepted("good"), structs.replace(accepted("bad"), secret_mac="1" * 64)):
        assert key().secret_mac not in repr(verdict)
        assert "1" * 64 not in repr(verdict)
