"""What the faults bench counts and promises, on made-up figures."""

from pathlib import Path

from bench.faults.routing import CASES, QUICK, Row, avoided, settings, started, table
from bench.routing import SIZES, busy_pools, endpoints, microseconds
from bench.routing import table as routing_table
from console.config import load
from workers.router.choice import Place
from workers.router.strategies import STRATEGIES

EXPOSITION = """
# HELP headrace_upstream_attempts_total Calls of endpoints; outcome: ok or an error code.
headrace_upstream_attempts_total{endpoint="slow-bad",outcome="ok"} 12.0
headrace_upstream_attempts_total{endpoint="slow-bad",outcome="upstream_timeout"} 3.0
headrace_upstream_attempts_total{endpoint="slow-good",outcome="ok"} 40.0
headrace_endpoint_inflight{endpoint="slow-bad"} 2.0
headrace_endpoint_inflight{endpoint="another"} 9.0
headrace_endpoint_up{endpoint="slow-bad",model="slow"} 1.0
"""
CASE = {case.name: case for case in CASES}


def test_calls_that_ended_and_calls_under_way_are_counted_by_endpoint() -> None:
    assert started(EXPOSITION, ("slow-bad", "slow-good")) == {"slow-bad": 17, "slow-good": 40}


def test_an_engine_is_avoided_after_its_last_large_share() -> None:
    looks = [(0.0, 0, 0), (1.0, 10, 20), (2.0, 18, 40), (3.0, 19, 60), (4.0, 20, 80), (9.0, 30, 100)]
    assert avoided(looks, fault_at=1.0, over_at=5.0) == 1.0
    assert avoided(looks, fault_at=2.0, over_at=5.0) == 0.0


def test_a_row_says_which_promise_did_not_hold() -> None:
    good = Row(CASE["hangs"], requests=100, calls=119)
    assert good.broken() == []
    assert Row(CASE["hangs"], requests=100, failed=1, calls=100).broken() == ["1 of 100 requests failed"]
    assert "1.21" in Row(CASE["slow"], requests=100, calls=121).broken()[0]
    assert Row(CASE["full"]).broken() == ["nothing was sent"]
    assert Row(CASE["breaks"], requests=100, failed=9, codes={"upstream_timeout": 9}, calls=100).broken() == []
    assert Row(CASE["breaks"], requests=100, failed=9, codes={"broken": 9}, calls=100).broken()
    assert Row(CASE["breaks"], requests=100, failed=30, codes={"upstream_timeout": 30}, calls=100).broken()
    assert "1.190" in table([good])


def test_the_settings_of_a_run_are_valid_and_every_case_has_two_endpoints(tmp_path: Path) -> None:
    file = tmp_path / "headrace.yaml"
    for strategy in STRATEGIES:
        file.write_text(settings(CASES, "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1", strategy))
        found = load(file, environ={})
        assert found.router.strategy == strategy and len(found.models) == 2 * len(CASES)
    assert QUICK.fault_s > found.router.first_byte_timeout_s


def test_the_routing_bench_decides_as_a_router_does() -> None:
    pool = endpoints(SIZES[-1])
    for strategy in STRATEGIES:
        assert isinstance(busy_pools(strategy, pool).pick("p", pool, frozenset()), Place)
    assert microseconds(lambda: None) > 0
    assert "2.0 (3.0)" in routing_table({"cost": [(2.0, 3.0)] * len(SIZES)})
