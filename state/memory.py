"""The memory twins of this folder: the same promises without a server, for tests and simulations.

They pass the same contract suite (tests/contract). Time comes from the clock they are given, as it comes from the
server's TIME over there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from base.clock import Clock
from base.ewma import Latency, Sample
from policy import breaker as rules
from policy.breaker import Breaker
from schemas.ports import Reservation, Reserved, Scope
from schemas.records import EndpointRecord, KeyRecord, ModelRecord, ProcessRecord
from state.catalog import snapshot
from state.inflight import LOST_MS, Report, Use, judge, lost
from state.latency import LIFE_MS
from state.processes import SILENT_MS

_WINDOW_MS, _BUSY_RETRY_MS = 60_000, 1000


class MemoryKeys:
    """Keys in a dict."""

    def __init__(self, records: Iterable[KeyRecord] = ()) -> None:
        self._records = {record.key_id: record for record in records}

    async def find(self, key_id: str) -> KeyRecord | None:
        return self._records.get(key_id)

    async def project(self, record: KeyRecord) -> None:
        self._records[record.key_id] = record

    def forget(self, key_id: str) -> None:
        """Nothing is cached here."""

    def forget_all(self) -> None:
        """Nothing is cached here."""


class MemoryCatalog:
    """Models and endpoints in dicts."""

    def __init__(self, models: Iterable[ModelRecord] = (), endpoints: Iterable[EndpointRecord] = ()) -> None:
        self._models = {item.name: item for item in models}
        self._endpoints = {item.endpoint: item for item in endpoints}

    async def model(self, name: str) -> ModelRecord | None:
        return self._models.get(name)

    async def models(self) -> Sequence[ModelRecord]:
        return tuple(snapshot(self._models.values(), ()).models.values())

    async def endpoints(self, pool: str) -> Sequence[EndpointRecord]:
        return snapshot((), self._endpoints.values()).pools.get(pool, ())

    async def known(self) -> Sequence[EndpointRecord]:
        return sorted(self._endpoints.values(), key=lambda item: item.endpoint)

    async def publish(self, models: Iterable[ModelRecord] = (), endpoints: Iterable[EndpointRecord] = ()) -> None:
        self._endpoints.update({item.endpoint: item for item in endpoints})
        self._models.update({item.name: item for item in models})

    async def withdraw(self, models: Sequence[str] = (), endpoints: Sequence[str] = ()) -> None:
        for name in models:
            self._models.pop(name, None)
        for name in endpoints:
            self._endpoints.pop(name, None)

    def forget(self) -> None:
        """Nothing is cached here."""


class MemoryProcesses:
    """Announced processes in a dict."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[str, ProcessRecord] = {}

    async def announce(self, record: ProcessRecord) -> None:
        self._records[record.consumer] = replace(record, seen_ms=self._clock.now_ms())

    async def withdraw(self, consumer: str) -> None:
        self._records.pop(consumer, None)

    async def list(self) -> Sequence[ProcessRecord]:
        since = self._clock.now_ms() - SILENT_MS
        self._records = {name: record for name, record in self._records.items() if record.seen_ms > since}
        return [self._records[name] for name in sorted(self._records)]


class MemoryInflight:
    """Routers' reports in a dict."""

    def __init__(self, clock: Clock, *, lost_ms: int = LOST_MS) -> None:
        self._clock, self._lost_ms = clock, lost_ms
        self._reports: dict[str, Report] = {}

    async def now_ms(self) -> int:
        return self._clock.now_ms()

    async def report(self, process: str, report: Report) -> None:
        self._reports[process] = report

    async def leave(self, process: str) -> None:
        self._reports.pop(process, None)

    async def use(self, endpoint: str, since_ms: int) -> Use:
        for name in lost(self._reports, self._clock.now_ms() - self._lost_ms):
            del self._reports[name]
        return judge(self._reports.values(), endpoint, since_ms)


@dataclass(slots=True)
class _Scope:
    """One scope's members: run -> when it was counted, run -> when its hold frees itself."""

    counted: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)

    def prune(self, now: int) -> None:
        self.counted = {run: at for run, at in self.counted.items() if at > now - _WINDOW_MS}
        self.held = {run: until for run, until in self.held.items() if until > now}

    def leaves(self, nth: int, now: int) -> int:
        """When the window's nth request (from 0) leaves it, in ms from now."""
        times = sorted(self.counted.values())
        return max(1, times[nth] + _WINDOW_MS - now) if nth < len(times) else _WINDOW_MS


class MemoryLimits:
    """Reservations in dicts."""

    def __init__(self, clock: Clock, *, settled_ms: int = 600_000) -> None:
        self._clock, self._settled_ms = clock, settled_ms
        self._scopes: dict[tuple[str, str], _Scope] = {}
        self._settled: dict[tuple[str, str], int] = {}

    async def reserve(self, wanted: Sequence[Reservation]) -> Sequence[Reserved]:
        return [self._reserve(item) for item in wanted]

    async def settle(self, tenant: str, run: str, scopes: Sequence[str]) -> None:
        if not scopes:
            return
        now = self._clock.now_ms()
        self._settled = {key: until for key, until in self._settled.items() if until > now}
        self._settled[tenant, run] = now + self._settled_ms
        for name in scopes:
            self._scope(tenant, name).held.pop(run, None)

    def _reserve(self, item: Reservation) -> Reserved:
        now = self._clock.now_ms()
        if self._settled.get((item.tenant, item.run), 0) > now:
            return Reserved(granted=True)
        pairs = [(scope, self._scope(item.tenant, scope.name)) for scope in item.scopes]
        for scope, found in pairs:
            found.prune(now)
            refused = _refusal(item.run, scope, found, now)
            if refused is not None:
                return refused
        return _grant(item, pairs, now)

    def _scope(self, tenant: str, name: str) -> _Scope:
        return self._scopes.setdefault((tenant, name), _Scope())


def _refusal(run: str, scope: Scope, found: _Scope, now: int) -> Reserved | None:
    most, used = scope.requests_per_minute, len(found.counted)
    if run in found.held:
        return None
    if run not in found.counted and most and used >= most:
        return Reserved(
            granted=False,
            scope=scope.name,
            limit="requests_per_minute",
            limit_requests=most,
            remaining_requests=0,
            reset_requests_ms=found.leaves(0, now),
            retry_after_ms=found.leaves(used - most, now),
        )
    if scope.concurrency and len(found.held) >= scope.concurrency:
        return Reserved(granted=False, scope=scope.name, limit="concurrency", retry_after_ms=_BUSY_RETRY_MS)
    return None


def _grant(item: Reservation, pairs: Sequence[tuple[Scope, _Scope]], now: int) -> Reserved:
    answer = Reserved(granted=True)
    for scope, found in pairs:
        reset = found.leaves(0, now)
        if item.run not in found.held:
            if scope.requests_per_minute:
                found.counted.setdefault(item.run, now)
            found.held[item.run] = now + item.ttl_ms
        left = max(0, scope.requests_per_minute - len(found.counted))
        if scope.requests_per_minute and (answer.remaining_requests < 0 or left < answer.remaining_requests):
            answer = Reserved(
                granted=True,
                limit_requests=scope.requests_per_minute,
                remaining_requests=left,
                reset_requests_ms=reset,
            )
    return answer


class MemoryBreakers:
    """Breakers in a dict; several routers may hold the same one."""

    def __init__(self, clock: Clock, limits: rules.Limits) -> None:
        self._clock, self._limits = clock, limits
        self._known: dict[str, Breaker] = {}

    async def failed(self, endpoint: str, opens: int) -> Breaker:
        return self._keep(endpoint, rules.failed(self._find(endpoint), opens, self._now(), self._limits))

    async def succeeded(self, endpoint: str, opens: int) -> Breaker:
        return self._keep(endpoint, rules.succeeded(self._find(endpoint), opens, self._now(), self._limits))

    async def released(self, endpoint: str, opens: int) -> Breaker:
        return self._keep(endpoint, rules.released(self._find(endpoint), opens))

    async def probed(self, endpoint: str) -> tuple[bool, Breaker]:
        granted, after = rules.probed(self._find(endpoint), self._now(), self._limits)
        return granted, self._keep(endpoint, after)

    async def look(self) -> Mapping[str, Breaker]:
        return {name: rules.remembered(one, self._now(), self._limits) for name, one in self._known.items()}

    def _find(self, endpoint: str) -> Breaker:
        return self._known.get(endpoint, rules.NEW)

    def _keep(self, endpoint: str, after: Breaker) -> Breaker:
        if after.failures or after.opens:
            self._known[endpoint] = after
        else:
            self._known.pop(endpoint, None)
        return after

    def _now(self) -> int:
        return int(self._clock.monotonic() * 1000)


class MemoryLatencies:
    """Averages in a dict; several routers may hold the same one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, Latency] = {}

    async def exchange(self, samples: Mapping[str, Sample]) -> Mapping[str, Latency]:
        now = self._clock.monotonic()
        for name, sample in samples.items():
            self._known[name] = self._known.get(name, Latency()).after(sample, now)
        self._known = {name: one for name, one in self._known.items() if now - one.at <= LIFE_MS / 1000}
        return dict(self._known)
