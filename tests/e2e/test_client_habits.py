"""What clients and engines do besides the plain case: other headers, several choices, usage in odd places, leaving."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import urllib.parse
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.e2e.house import House, read_event, until
from tests.e2e.scripted import DONE, HANG, USAGE, ScriptedEngine, chunked, completion, event, unary

LAB = "lab/scripted"
USER: Any = [{"role": "user", "content": "say it"}]
BODY = json.dumps({"model": LAB, "messages": USER}).encode()


def test_key_may_come_in_the_header_x_api_key(house: House, lab: ScriptedEngine) -> None:
    connection = http.client.HTTPConnection(house.base_url.partition("://")[2], timeout=30)
    connection.request("POST", "/v1/chat/completions", BODY, {"x-api-key": house.key})
    assert connection.getresponse().read() and lab.requests
    connection.close()


def test_client_that_gives_up_by_itself_stops_the_engine(client: OpenAI, lab: ScriptedEngine) -> None:
    lab.play([HANG])
    with pytest.raises((openai.APITimeoutError, openai.InternalServerError)):
        client.with_options(timeout=0.5).chat.completions.create(model=LAB, messages=USER)
    assert lab.last.left.wait(30)


def test_client_that_waits_for_100_continue_is_told_to_go_on(house: House, lab: ScriptedEngine) -> None:
    address = urllib.parse.urlsplit(house.base_url)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {house.key}\r\n"
    head += f"content-length: {len(BODY)}\r\nexpect: 100-continue\r\n\r\n"
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as line:
        line.sendall(head.encode())
        assert line.recv(1000).startswith(b"HTTP/1.1 100")
        line.sendall(BODY)
        assert line.recv(1000).startswith(b"HTTP/1.1 200")


def test_request_sent_ahead_of_its_turn_gets_no_wrong_answer(house: House, lab: ScriptedEngine) -> None:
    """Pipelining is not served: the first request is answered whole, then the connection closes."""
    lab.play(unary(completion("first")), unary(completion("second")))
    address = urllib.parse.urlsplit(house.base_url)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {house.key}\r\n"
    one = f"{head}content-length: {len(BODY)}\r\n\r\n".encode() + BODY
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as line:
        line.sendall(one + one)
        said = b"".join(iter(lambda: line.recv(65536), b""))
    assert said.count(b"HTTP/1.1 200") == 1 and b'"first"' in said and len(lab.requests) == 1


def test_several_choices_are_kept_apart(client: OpenAI, house: House, lab: ScriptedEngine) -> None:
    def piece(index: int, text: str | None, finish: str | None = None) -> bytes:
        delta = {} if text is None else {"content": text}
        return event(None, choices=[{"index": index, "delta": delta, "finish_reason": finish}])

    lab.play(
        chunked(piece(0, "a"), piece(1, "x"), piece(0, None, "stop"), piece(1, "y"), piece(1, None, "length"), DONE)
    )
    texts, reasons = ["", ""], ["", ""]
    for chunk in client.chat.completions.create(model=LAB, messages=USER, stream=True, n=2):
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert (texts, reasons) == (["a", "xy"], ["stop", "length"])


def test_one_choice_that_never_finished_is_an_error(client: OpenAI, lab: ScriptedEngine) -> None:
    begun = event(None, choices=[{"index": 1, "delta": {"content": "x"}, "finish_reason": None}])
    lab.play(chunked(begun, event("a"), event({}, "stop")))
    with pytest.raises(openai.APIError) as caught:
        list(client.chat.completions.create(model=LAB, messages=USER, stream=True, n=2))
    assert caught.value.code == "upstream_interrupted"


def test_usage_that_comes_with_every_chunk_is_hidden_or_shown_as_asked(client: OpenAI, lab: ScriptedEngine) -> None:
    for asked in (False, True):
        lab.play(chunked(event("a", usage=USAGE), event({}, "stop", usage=USAGE), DONE))
        wanted: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
        chunks = list(client.chat.completions.create(model=LAB, messages=USER, stream=True, **wanted))
        assert [chunk.usage is not None for chunk in chunks] == [asked, asked]


def test_key_that_wants_its_runs_finished_gets_the_answer_later(house: House, lab: ScriptedEngine) -> None:
    token = house.new_key(on_disconnect="finish")["token"]
    gate = threading.Event()
    lab.play(chunked(event("a "), gate, event("b "), event({}, "stop"), DONE))
    connection = house.post({"model": LAB, "messages": USER, "stream": True}, key=token)
    response = connection.getresponse()
    read_event(response)
    run = response.headers["x-request-id"]
    response.close()
    connection.close()
    until(lambda: not watched(house, run))
    gate.set()
    assert house.record(run)["outcome"] == "completed"
    assert not lab.last.left.is_set()


def watched(house: House, run: str) -> bool:
    """Whether anybody watches the run."""
    import redis

    with redis.Redis.from_url(house.valkey_url) as server:
        key = next(server.scan_iter(f"*:run:{run}"))
        return bool(server.hget(key, "watchers"))


def test_chunked_upload_over_the_limit_is_a_413(house: House) -> None:
    connection = http.client.HTTPConnection(house.base_url.partition("://")[2], timeout=30)
    headers = {"authorization": f"Bearer {house.key}", "content-type": "application/json"}
    pieces = (b"x" * 65_536 for _ in range(40))
    connection.request("POST", "/v1/chat/completions", pieces, headers, encode_chunked=True)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]["code"]) == (413, "request_too_large")
    connection.close()


def test_client_with_room_for_one_request_may_send_one_after_the_other(house: House) -> None:
    token = house.new_key(concurrency=1)["token"]
    client = OpenAI(base_url=f"{house.base_url}/v1", api_key=token, max_retries=0)
    for _ in range(20):
        client.chat.completions.create(model="mock", messages=USER, max_tokens=2)
