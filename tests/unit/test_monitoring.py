"""The files for Prometheus and Grafana: they read metrics that exist, from ports that answer."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
import yaml

from console.stack import ROOMS
from tests.deploy_support import DEPLOY, board, rules, strangers
from tests.unit.test_compose import FIRST_HEALTH_PORT, OURS, SERVICES

CONFIG: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())


def test_every_process_of_every_profile_is_scraped() -> None:
    found = {
        (job["job_name"], name, place["port"])
        for job in CONFIG["scrape_configs"]
        for place in job["dns_sd_configs"]
        for name in place["names"]
    }
    split = {(room, room, FIRST_HEALTH_PORT + place) for place, room in enumerate(ROOMS)}
    merged = {("unified", "headrace", FIRST_HEALTH_PORT + place) for place in (0, 1)}
    assert found == split | merged
    assert {name for _, name, _ in found} <= set(OURS)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_reads_what_is_exported_and_says_what_to_do(rule: dict[str, Any]) -> None:
    assert strangers(rule["expr"]) == []
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert len(rule["annotations"]["summary"]) > 10
    assert len(rule["annotations"]["remedy"]) > 10


@pytest.mark.parametrize("panel", board()["panels"], ids=lambda panel: panel["title"])
def test_a_panel_reads_what_is_exported(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    assert [stranger for target in panel["targets"] for stranger in strangers(target["expr"])] == []


def test_a_metric_or_label_that_does_not_exist_is_noticed() -> None:
    assert strangers("sum(rate(headrace_nonsense_total[5m]))") == ["headrace_nonsense_total"]
    assert strangers('headrace_inflight{nonsense="x"} > 1') == ["nonsense"]
    assert strangers("sum by (nonsense) (headrace_inflight)") == ["nonsense"]


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_grafana_finds_its_source_and_its_board() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/headrace.yml").read_text())["providers"]
    assert {panel["datasource"]["uid"] for panel in board()["panels"]} == {source["uid"]}
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]


def test_prometheus_itself_accepts_the_files() -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    for words in (["rules", "rules.yml"], ["config", "--syntax-only", "prometheus.yml"]):
        done = subprocess.run([tool, "check", *words], cwd=DEPLOY / "prometheus", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
