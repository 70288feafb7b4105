"""Drives the points of each axis and writes pictures and tables: `scripts/bench --plot [FOLDER] [--only AXIS]`.

Every axis has a fresh Headrace in every run. With the default of three runs all of it takes about twenty minutes.
"""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import redis

from bench import machine
from bench.growth import page
from bench.growth.axes import Axis, Measured, Point, axes, measured
from bench.measure import Bench, MockEngine
from bench.peers import Headrace, Peer, StartError
from bench.report import put
from console.embedded.processes import wait_until
from tests.e2e.house import House

#: Runs when the command line names none, and seconds an embedded Headrace may take to come up.
RUNS = 3
_START_S = 90.0
_TAKES = {"aof off": "no", "aof everysec": "everysec", "aof always": "always"}
PAGE = "performance.md"
_SLOTS = 4096


class Growth:
    """All axes that were asked for. say: progress."""

    def __init__(self, asked: argparse.Namespace, folder: Path, port: Callable[[], int],
                 say: Callable[[str], None]) -> None:  # fmt: skip
        self._asked, self._folder, self._port, self._say = asked, folder, port, say
        self._about: dict[str, str] = {}

    def run(self, target: Path) -> None:
        """Measure, and write each axis as soon as it has all its runs; StartError when something does not come up."""
        mock = MockEngine(self._folder / "mock.log", self._asked.harness_cores)
        try:
            for axis in axes(self._asked.window):
                if not self._asked.only or axis.name in self._asked.only:
                    runs = [self._one_run(axis, number, mock) for number in range(self._asked.runs)]
                    self._write(axis, runs, target)
        finally:
            mock.program.stop(5)

    def _one_run(self, axis: Axis, number: int, mock: MockEngine) -> list[Measured]:
        found: list[Measured] = []
        for words in dict.fromkeys(point.words for point in axis.points):
            data = self._folder / f"{axis.name}{number}-{len(found)}"
            headrace = Headrace("headrace", self._asked.headrace, data, self._port(), mock.url,
                                [*self._asked.up_arg, *words], self._asked.gateway_cores)  # fmt: skip
            try:
                peer, _, _ = headrace.ready(_START_S)
                self._about = machine.describe(peer.groups)
                house = House(data, headrace.process)
                widen(house, mock.url)
                found += self._points(axis, [point for point in axis.points if point.words == words], mock, peer, house)
            finally:
                headrace.stop()
        order = [point.label for point in axis.points]
        return sorted(found, key=lambda one: order.index(one.label))

    def _points(self, axis: Axis, points: list[Point], mock: MockEngine, peer: Peer, house: House) -> list[Measured]:
        """As far as they hold."""
        found = []
        keys: list[str] = []
        for point in points:
            if point.keys:
                keys += new_keys(house, point.keys - len(keys))
            with ExitStack() as stack:
                enter(stack, point, peer, house)
                one = measured(axis, point, self._measure(point, mock, replace(peer, keys=tuple(keys[: point.keys]))))
            self._say(f"{axis.name} {point.label}: CPU {one.total or 0:.2f} {axis.measure}, p99 {one.p99 or 0:.1f} ms"
                      f"{f', broke: {one.broke}' * bool(one.broke)}")  # fmt: skip
            found.append(one)
            if one.broke and axis.rises:
                break
        return found

    def _measure(self, point: Point, mock: MockEngine, peer: Peer) -> dict[str, object]:
        return Bench(mock, [peer], self._asked.harness_cores).measure(point.cell, peer)

    def _write(self, axis: Axis, runs: page.Runs, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        (target / f"growth-{axis.name}.svg").write_text(page.svg(axis, runs))
        path = target / PAGE
        words = page.part(axis, runs, self._words(axis))
        path.write_text(put(path.read_text() if path.exists() else "# Performance\n", f"growth {axis.name}", words))
        self._say(f"{axis.name}: {path}")

    def _words(self, axis: Axis) -> str:
        about, note = self._about, self._asked.note
        runs = f"{self._asked.runs} run{'s' * (self._asked.runs > 1)}"
        return (
            f"`scripts/bench --plot --only {axis.name}`, {runs}, {machine.today()}, revision {about['revision']}, "
            f"{about['machine']}, Python {about['Python']}.{f' {note}' * bool(note)}"
        )


def widen(house: House, url: str) -> None:
    """Slots of the engine for more streams than any point has; `headrace up --engine` gives it 1,024."""
    wish = {"name": "mock", "deployment": "mock", "pool": "mock", "url": url, "slots": _SLOTS, "private": True}
    status, said = house.request("/admin/v1/models", wish)
    if status != 202:
        raise StartError(f"the engine got no more slots: {status} {said}")

    def wide() -> bool:
        rows = house.request("/admin/v1/deployments")[1]["data"]
        return [(row["state"], row["slots"]) for row in rows if row["deployment"] == "mock"] == [("ready", _SLOTS)]

    if not wait_until(wide, _START_S):
        raise StartError("the engine is not ready with more slots")


def new_keys(house: House, count: int) -> list[str]:
    """So many more keys, made through the admin API."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda _: str(house.new_key()["token"]), range(count)))


def enter(stack: ExitStack, point: Point, peer: Peer, house: House) -> None:
    """Set what the point wants, until the stack is unwound."""
    if point.state == "audit frozen":
        stack.enter_context(_frozen(peer.groups["audit"][0]))
    elif point.state:
        stack.enter_context(_append(house.valkey_url, _TAKES[point.state]))


@contextmanager
def _frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def _append(url: str, takes: str) -> Iterator[None]:
    """The server's append-only file: no, or when it goes to disk."""
    with redis.Redis.from_url(url) as client:
        client.config_set("appendonly", "no" if takes == "no" else "yes")
        client.config_set("appendfsync", takes if takes != "no" else "everysec")
        try:
            yield
        finally:
            client.config_set("appendfsync", "everysec")
            client.config_set("appendonly", "yes")
