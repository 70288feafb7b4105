"""The house rules see what they promise to see, in whatever spelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checks_support import load_script

lint = load_script("lint")


def found(path: str, text: str) -> list[str]:
    return [problem for _, problem in lint.violations(Path(path), text)]


@pytest.mark.parametrize(
    "text",
    [
        "import time\ntime.time()",
        "from time import monotonic as now\nnow()",
        "import time as t\nt.monotonic()",
        "import random",
        "from random import choice",
        "import secrets",
        "import uuid\nuuid.uuid4()",
        "from os import urandom\nurandom(4)",
        "import asyncio\nasyncio.sleep(1)",
        "from asyncio import sleep\nsleep(1)",
        "import time\nf(clock=time.monotonic)",
    ],
)
def test_time_and_chance_are_refused_outside_base(text: str) -> None:
    assert found("workers/router/rules.py", text)
    assert not found("base/clock.py", text)


@pytest.mark.parametrize(
    "text",
    ["clock.monotonic()", "import time\ntime.sleep(1)", "secrets = settings.secrets", "from base.ids import Random"],
)
def test_the_house_clock_and_harmless_names_are_allowed(text: str) -> None:
    assert not found("workers/router/rules.py", text)


@pytest.mark.parametrize("text", ["client.xack(a)", 'call("XCLAIM", a)', "xautoclaim(a)"])
def test_acknowledging_is_refused_outside_runtime(text: str) -> None:
    assert found("state/keys.py", text)
    assert not found("runtime/groups.py", text)


def test_prose_about_acknowledging_is_allowed() -> None:
    assert not found("workers/audit/rules.py", '"""Commits before XACK."""\n# xack comes later\n')


def test_marks_of_a_merge_are_refused_even_in_a_docstring() -> None:
    left, right = "<" * 7, ">" * 7
    assert len(found("console/stack.py", f'"""A plan.\n\n    {left} HEAD\n    {right} main\n"""\n')) == 2
    assert not found("console/stack.py", '"""Sent >>> here."""\nleft = 1 << 7\n')


@pytest.mark.parametrize(
    "call",
    [
        'connection.execute(f"SELECT {name}")',
        'connection.fetch("SELECT " + name)',
        'connection.fetchval("SELECT %s" % name)',
        'connection.fetchrow("SELECT {}".format(name))',
    ],
)
def test_built_statements_are_refused_in_storage(call: str) -> None:
    assert found("storage/keys.py", call)


def test_named_statements_are_allowed_in_storage() -> None:
    assert not found("storage/keys.py", 'connection.execute(QUERIES["add"], name)\nconnection.execute("SELECT 1")')
