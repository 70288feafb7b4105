"""What an operator does on the first day, from the wheel to two routers and three rule workers, under load.

The servers are Debian's Redis 7.0 and PostgreSQL 15. What is promised when a process dies by kill -9 or is stopped:

    a worker of checks     what it held goes on elsewhere: no request fails
    a router, stopped      finishes what it holds: no request fails
    a router, killed       answers whose first byte was not sent go on elsewhere after 15 s: none of them fails;
                           streams that had begun end with `upstream_interrupted` (test_crash_matrix.py)
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from openai import OpenAI

from base.ports import free_port
from tests.conftest import short_folder
from tests.e2e.house import Engine, scripted_engine, until
from tests.e2e.installed import Installed, serving, up
from tests.e2e.load import LONG, Load, stream, unary
from tests.own_servers import TOKEN, own_servers

pytestmark = pytest.mark.slow
MODEL = "hosted-large"


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody with the installed command, a client with the first application key, and a hoster's engine."""

    installed: Installed
    client: OpenAI
    engine: Engine

    def asks(self, *words: str) -> Any:
        """The JSON answer of a command."""
        return json.loads(self.installed.run(*words, "--json"))

    def serving(self, group: str) -> set[int]:
        """How many processes serve the streams of a group, as `headrace lag` shows it."""
        return {row["serving"] for row in self.asks("lag")["data"] if row["group"] == group}

    def workers(self, room: str) -> dict[str, int]:
        """Processes that serve one room alone: consumer -> pid."""
        return {row["consumer"]: row["pid"] for row in self.asks("status")["processes"] if row["rooms"] == [room]}

    def holds(self, consumer: str) -> int:
        """Requests that a router has in hand."""
        rows = self.asks("lag", "--consumers")["data"]
        return sum(row["pending"] for row in rows if row["consumer"] == consumer)


@pytest.fixture(scope="module")
def operator(programs: Path) -> Iterator[Operator]:
    """Headrace up on own servers with a hosted model, all by the installed command."""
    with ExitStack() as stack:
        home, folder = stack.enter_context(short_folder()), stack.enter_context(short_folder())
        servers = stack.enter_context(own_servers(folder))
        engine = stack.enter_context(scripted_engine("--itl-ms", "20"))
        installed, port = Installed(programs, home), free_port()
        lines = servers.environment(INTERNAL_API_KEY=TOKEN).items()
        (home / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines))
        key = re.search(r"first application key\n +(hr_\w+)", installed.run("init"))
        assert key is not None
        stack.enter_context(up(installed, port, "--no-model"))
        add = ("models", "add", MODEL, "--url", engine.url, "--api-key-env", "HOSTED_KEY", "--slots", "64", "--wait")
        assert "is ready" in installed.run(*add, more={"HOSTED_KEY": "sk-of-the-hoster"})
        url = f"http://127.0.0.1:{port}/v1"
        client = stack.enter_context(OpenAI(base_url=url, api_key=key[1], max_retries=0))
        yield Operator(installed, client, engine)


@contextmanager
def second_router(operator: Operator, code: int = 0) -> Iterator[tuple[str, Popen[bytes]]]:
    """`headrace start router`, ready: its name and process. code: how it ends."""

    def ready() -> bool:
        return bool(operator.workers("router"))

    with serving(operator.installed, "start", "router", ready=ready, code=code) as process:
        (consumer,) = operator.workers("router")
        yield consumer, process


def test_scaled_out_a_dead_rule_worker_and_a_stopped_router_fail_no_request(operator: Operator) -> None:
    with Load(operator.client, MODEL, (stream, stream, unary, unary)) as load:
        operator.installed.run("scale", "rules", "3")
        with second_router(operator) as (consumer, router):
            until(lambda: (operator.serving("router"), operator.serving("rules")) == ({2}, {3}))
            load.goes_on()
            before = operator.workers("rules")
            os.kill(next(iter(before.values())), signal.SIGKILL)
            until(lambda: operator.workers("rules").keys() - before.keys())  # the supervisor has started another
            load.goes_on()
            answers = load.long(8)
            until(lambda: operator.holds(consumer) >= 2)
            router.send_signal(signal.SIGTERM)
            assert router.wait(60) == 0
        assert [answer.result(60) for answer in answers] == [LONG] * 8
        load.goes_on()


def test_a_router_killed_under_unary_requests_fails_none_of_them(operator: Operator) -> None:
    with (
        second_router(operator, code=-signal.SIGKILL) as (consumer, router),
        Load(operator.client, MODEL, (unary,) * 4) as load,
    ):
        answers = load.long(8, unary)
        until(lambda: operator.holds(consumer) >= 2)
        router.kill()
        load.goes_on()
        assert [answer.result(60) for answer in answers] == [LONG] * 8
    assert operator.engine.stats()["aborted"] >= 1  # what it held and had not ended was asked again by the other one
