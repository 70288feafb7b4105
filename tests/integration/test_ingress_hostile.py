"""Every hostile request of bench/hostile.py at a real door: below 500, once, and nothing of ours to be seen."""

from __future__ import annotations

import logging

import pytest

from bench.hostile import ODD, REFUSED, Target, ask
from tests.ingress_support import Gateway, PlayedRun, chat_body, completion, gateway, post, raw


async def answer(run: PlayedRun) -> None:
    await run.answer(completion("Hello"))


def target(up: Gateway) -> Target:
    return Target("127.0.0.1", up.port, up.token, "tiny")


async def test_what_no_door_may_serve_is_refused_once_and_starts_no_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    async with gateway(answer, header_timeout=1, body_timeout=1) as up:
        wrong = {name: (await ask(target(up), send(target(up)))).wrong(legal=False) for name, send in REFUSED.items()}
        assert {name: said for name, said in wrong.items() if said} == {}
        assert up.door.runs == {} and caplog.records == []
        assert (await raw(up.port, post(up.token, chat_body()))).status == 200


async def test_what_is_odd_is_served_or_refused_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    async with gateway(answer, header_timeout=1, body_timeout=1) as up:
        for name, send in ODD.items():
            before, reply = len(up.door.runs), await ask(target(up), send(target(up)))
            assert reply.wrong(legal=True) == "", name
            assert len(reply.statuses) == 1 and len(up.door.runs) - before <= 1, name
        assert caplog.records == []
