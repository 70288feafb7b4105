"""However a request ends, exactly one row says how, with the tokens that the engine counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.house import Engine, House, until
from tests.e2e.scripted import HANG, ScriptedEngine, chunked, event, failure


def prompt(name: str, marks: str = "") -> Any:
    return [{"role": "user", "content": f"one two three @@id={name} {marks}"}]


def rows_of(house: House, run: str) -> list[dict[str, Any]]:
    """The rows of a run in the newest page, once there is one."""
    house.record(run)
    status, page = house.request("/admin/v1/requests?limit=1000")
    assert status == 200
    return [row for row in page["data"] if row["run"] == run]


def the_row(house: House, run: str) -> dict[str, Any]:
    """The one row and the one fact of an ended run."""
    (row,) = rows_of(house, run)
    _, trace = house.request(f"/admin/v1/trace/{run}")
    facts = [one for one in trace["timeline"] if one["event"].startswith("fact ")]
    assert len(facts) == 1 and trace["state"] == "ended"
    return row


@pytest.mark.parametrize("stream", [False, True])
def test_completed_request_has_the_engines_count_and_its_price(
    client: OpenAI, house: House, mock: Engine, stream: bool
) -> None:
    name = f"audit-{stream}"
    raw = client.chat.completions.with_raw_response.create(
        model="mock",
        messages=prompt(name),
        max_tokens=11,
        stream=stream,
        extra_headers={"x-client-request-id": "mine-1"},
    )
    if stream:
        list(raw.parse())
    row = the_row(house, raw.headers["x-request-id"])
    sent = mock.ledger(name)[name]
    assert [one["tokens"] for one in sent] == [11]
    assert (row["prompt_tokens"], row["completion_tokens"], row["estimated"]) == (4, 11, False)
    assert row["cost_micros"] == 4 * 1 + 11 * 2
    assert (row["outcome"], row["status"], row["code"], row["finish_reason"]) == ("completed", 200, "", "length")
    assert (row["model"], row["endpoint"], row["stream"]) == ("mock", "mock", stream)
    assert (row["tenant"], row["route"], row["client_request_id"]) == ("default", "/v1/chat/completions", "mine-1")
    assert house.key.split("_")[1] == row["key_id"]
    assert row["accepted_ms"] <= row["cleared_ms"] <= row["claimed_ms"] <= row["ended_ms"]
    assert {verdict["family"]: verdict["outcome"] for verdict in row["verdicts"]} == {
        "authorization": "pass",
        "persons": "skip",
        "rules": "pass",
    }
    assert not row["unverified"]


def test_refused_request_has_a_row_without_tokens(client: OpenAI, house: House) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="mock", messages=prompt("no", "project nightfall"))
    row = the_row(house, str(caught.value.request_id))
    assert (row["outcome"], row["status"], row["code"]) == ("refused", 400, "content_policy_violation")
    assert (row["prompt_tokens"], row["completion_tokens"], row["cost_micros"]) == (0, 0, 0)


def test_request_over_its_limit_has_a_row(house: House) -> None:
    from tests.e2e.conftest import client_of

    made = house.new_key(requests_per_minute=1, tenant="narrow")
    with client_of(house, made["token"]) as limited:
        limited.chat.completions.create(model="mock", messages=prompt("first"))
        with pytest.raises(openai.RateLimitError) as caught:
            limited.chat.completions.create(model="mock", messages=prompt("second"))
    row = the_row(house, str(caught.value.request_id))
    assert (row["outcome"], row["status"], row["code"]) == ("refused", 429, "rate_limit_exceeded")
    assert (row["tenant"], row["key_id"]) == ("narrow", made["key_id"])


def test_failed_request_has_a_row_with_every_attempt(client: OpenAI, house: House, lab: ScriptedEngine) -> None:
    lab.play(failure(500))
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="lab/scripted", messages=prompt("bad"))
    row = the_row(house, str(caught.value.request_id))
    assert (row["outcome"], row["status"], row["code"]) == ("failed", 502, "upstream_error")
    assert [(one["status"], one["endpoint"]) for one in row["attempts"]] == [(500, "lab-scripted")]
    assert row["completion_tokens"] == 0


def test_broken_stream_has_a_row_with_the_tokens_that_were_sent(client: OpenAI, house: House, mock: Engine) -> None:
    stream = client.chat.completions.create(
        model="mock", messages=prompt("broken", "@@cut=5"), max_tokens=50, stream=True
    )
    with pytest.raises(openai.APIError):
        list(stream)
    row = the_row(house, stream.response.headers["x-request-id"])
    assert mock.ledger("broken")["broken"][0]["tokens"] == 5
    assert (row["outcome"], row["status"], row["code"]) == ("failed", 502, "upstream_interrupted")
    assert (row["completion_tokens"], row["estimated"]) == (5, True)


def test_cancelled_request_has_a_row_with_the_tokens_that_came(house: House, lab: ScriptedEngine) -> None:
    lab.play(chunked(event("one "), event("two "), HANG))
    connection = house.post({"model": "lab/scripted", "messages": prompt("x"), "stream": True})
    response = connection.getresponse()
    response.readline()
    connection.close()
    response.close()
    assert lab.last.left.wait(30)
    row = the_row(house, response.headers["x-request-id"])
    assert (row["outcome"], row["status"], row["code"]) == ("cancelled", 499, "cancelled")
    assert row["estimated"] and 1 <= row["completion_tokens"] <= 2


async def test_mixture_of_ends_at_once_leaves_one_row_each(house: House, mock: Engine) -> None:
    made = house.new_key()
    async with AsyncOpenAI(base_url=house.base_url + "/v1", api_key=made["token"], max_retries=0) as client:
        ends = await asyncio.gather(*(one_end(client, mock, number) for number in range(60)))

    def rows() -> Any:
        _, page = house.request(f"/admin/v1/requests?key_id={made['key_id']}&limit=1000")
        return page["data"] if len(page["data"]) >= 60 else None

    found = until(rows)
    assert len(found) == len({row["run"] for row in found}) == 60
    assert Counter(row["outcome"] for row in found) == Counter(ends)
    counted = sum(row["completion_tokens"] for row in found if row["outcome"] == "completed")
    names = [f"mix-{number}" for number, end in enumerate(ends) if end == "completed"]
    assert counted == sum(mock.ledger(name)[name][0]["tokens"] for name in names)


async def one_end(client: AsyncOpenAI, mock: Engine, number: int) -> str:
    """One request of one of four kinds; the outcome that its row must have."""
    marks = {1: "project nightfall", 2: "@@err=500", 3: "@@slow"}.get(number % 4, "")
    asking = asyncio.create_task(
        client.chat.completions.create(
            model="mock", messages=prompt(f"mix-{number}", marks), max_tokens=300 if number % 4 == 3 else number + 1
        )
    )
    if number % 4 == 3:
        async with asyncio.timeout(20):
            while not mock.ledger(f"mix-{number}")[f"mix-{number}"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        asking.cancel()
    try:
        await asking
    except openai.BadRequestError:
        return "refused"
    except openai.InternalServerError:
        return "failed"
    except asyncio.CancelledError:
        return "cancelled"
    return "completed"


def test_reservation_is_given_back_when_the_request_has_ended(house: House, lab: ScriptedEngine) -> None:
    import redis

    from tests.e2e.conftest import client_of

    with client_of(house, house.new_key(concurrency=2, tenant="settled")["token"]) as limited:
        limited.chat.completions.create(model="lab/scripted", messages=prompt("x"))
    with redis.Redis.from_url(house.valkey_url) as server:
        held = list(server.scan_iter("{o:settled}:held:*"))
        until(lambda: not any(server.zcard(key) for key in held))
