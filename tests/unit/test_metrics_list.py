"""base/metrics_list.py, base/metrics.py and base/health.py: one complete list, bounded labels, three paths."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import pytest

from base import metrics
from base.health import Health
from base.metrics_list import METRICS, CounterName, GaugeName, HistogramName

ROOT = Path(__file__).resolve().parents[2]


def test_the_list_and_the_types_name_the_same_metrics() -> None:
    for kind, names in (
        ("counter", CounterName),
        ("gauge", GaugeName),
        ("histogram", HistogramName),
    ):
        assert {item.name for item in METRICS if item.kind == kind} == set(get_args(names))


def test_every_metric_has_a_meaning_a_unit_and_the_right_form_of_name() -> None:
    for item in METRICS:
        assert item.meaning.endswith("."), item.name
        assert item.unit, item.name
        assert item.name.startswith(("headrace_", "gen_ai_")), item.name
        assert (item.kind == "counter") == item.name.endswith("_total"), item.name
        assert (item.kind == "histogram") == bool(item.buckets), item.name


def test_no_label_is_a_key_a_user_or_a_request() -> None:
    labels = {label for item in METRICS for label in item.labels}
    assert not labels & {"key", "key_id", "user", "user_id", "run", "run_id", "request_id", "trace"}


def test_an_unknown_name_does_not_pass_mypy(tmp_path: Path) -> None:
    program = tmp_path / "stray.py"
    program.write_text('from base import metrics\nmetrics.inc("headrace_typo_total")\n')
    mypy = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert mypy.returncode == 1
    assert "headrace_typo_total" in mypy.stdout


def test_what_is_counted_is_shown() -> None:
    metrics.inc("headrace_swept_total", 2, reason="shown")
    metrics.gauge("headrace_endpoint_up", 1, endpoint="e", model="shown")
    metrics.observe("headrace_queue_wait_seconds", 0.02, model="shown")
    text = metrics.exposition().decode()
    assert 'headrace_swept_total{reason="shown"} 2.0' in text
    assert 'headrace_endpoint_up{endpoint="e",model="shown"} 1.0' in text
    assert 'headrace_queue_wait_seconds_count{model="shown"} 1.0' in text
    assert "process_cpu_seconds_total" in text


def test_a_client_cannot_fill_the_memory_with_labels() -> None:
    for number in range(1_200):
        metrics.inc("headrace_cost_micros_total", model=f"m{number}")
    rows = re.findall(r"^headrace_cost_micros_total\{.*", metrics.exposition().decode(), re.MULTILINE)
    assert len(rows) == 1_001
    other = next(float(row.rpartition(" ")[2]) for row in rows if 'model="other"' in row)
    assert other >= 200  # more when another test of this session has counted models


# --- health -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def health() -> AsyncIterator[Health]:
    found = Health("router")
    await found.start()
    yield found
    await found.stop()


async def get(health: Health, path: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, head, body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", health.port)
    writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    raw = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = raw.partition("\r\n\r\n")
    return int(head.split()[1]), head, body


async def test_a_turning_loop_is_alive(health: Health) -> None:
    assert (await get(health, "/livez"))[0] == 200


async def test_ready_names_every_check(health: Health) -> None:
    async def good() -> str:
        return ""

    async def bad() -> str:
        raise OSError("no route")

    health.add("redis", good)
    assert (await get(health, "/readyz"))[0] == 200
    health.add("postgres", bad)
    status, _, body = await get(health, "/readyz")
    assert status == 503
    assert json.loads(body)["checks"] == {"redis": "ok", "postgres": "OSError: no route"}


async def test_a_draining_process_is_alive_but_not_ready(health: Health) -> None:
    health.draining = True
    assert (await get(health, "/readyz"))[0] == 503
    assert (await get(health, "/livez"))[0] == 200


async def test_metrics_are_served_as_prometheus_text(health: Health) -> None:
    status, head, body = await get(health, "/metrics?x=1")
    assert (status, metrics.CONTENT_TYPE in head, "# HELP" in body) == (200, True, True)


async def test_other_paths_methods_and_noise_are_turned_away(health: Health) -> None:
    assert (await get(health, "/"))[0] == 404
    assert (await get(health, "/livez", "POST"))[0] == 405
    reader, writer = await asyncio.open_connection("127.0.0.1", health.port)
    writer.write(b"x" * 20_000 + b"\r\n\r\n")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
    assert (await get(health, "/livez"))[0] == 200
