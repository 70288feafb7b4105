"""base/logs.py: one line, the right fields, never a prompt or a secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from base import logs

CANARY = "canary-1a2b3c"


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """Where lines go; the root logger is as before afterwards."""
    root, ours = logging.getLogger(), logging.getLogger(logs.ROOT)
    before = (root.handlers[:], root.level, ours.level)
    stream = io.StringIO()
    logs.setup("info", stream=stream, process="workers")
    yield stream
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_names_time_level_room_event_and_fields(out: io.StringIO) -> None:
    logs.room("router", tenant="acme").info("run claimed", run="r1", epoch=2)
    [line] = lines(out)
    assert list(line)[:5] == ["ts", "level", "room", "event", "process"]
    assert {k: line[k] for k in ("level", "room", "event", "tenant", "run", "epoch", "process")} == {
        "level": "info",
        "room": "router",
        "event": "run claimed",
        "tenant": "acme",
        "run": "r1",
        "epoch": 2,
        "process": "workers",
    }


@pytest.mark.parametrize(
    "name", ["prompt", "messages", "content", "body", "password", "client_secret", "token", "api_key"]
)
def test_fields_with_a_telling_name_are_hidden(out: io.StringIO, name: str) -> None:
    logs.room("x").info("e", **{name: CANARY}, nested={name: [CANARY]}, listed=[{name: CANARY}])
    assert CANARY not in out.getvalue()


def test_counts_of_tokens_are_not_secrets(out: io.StringIO) -> None:
    logs.room("x").info("e", prompt_tokens=7, token=3)
    assert (lines(out)[0]["prompt_tokens"], lines(out)[0]["token"]) == (7, 3)


@pytest.mark.parametrize(
    "text",
    [
        f"hr_0011aabb_{CANARY}_check",
        f"sk-{CANARY}",
        f"Authorization: Bearer {CANARY}",
        f"redis://user:{CANARY}@host:1/0",
    ],
)
def test_texts_that_look_like_credentials_are_hidden_wherever_they_stand(out: io.StringIO, text: str) -> None:
    log = logs.room("x")
    log.info(f"event with {text}", reason=text, raw=text.encode())
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("failed")
    assert CANARY not in out.getvalue()
    assert "Traceback" in lines(out)[1]["error"]


def test_the_id_of_a_key_stays_readable(out: io.StringIO) -> None:
    logs.room("x").info("e", shown="hr_0011aabb_secret_check")
    assert lines(out)[0]["shown"] == f"hr_0011aabb_{logs.HIDDEN}"


def test_a_line_stays_one_line(out: io.StringIO) -> None:
    logs.room("x").info("two\nlines", reason="a\nb\u2028c")
    assert len(out.getvalue().splitlines()) == 1 or out.getvalue().count("\n") == 1


def test_lines_of_libraries_have_the_same_form(out: io.StringIO) -> None:
    logging.getLogger("some.library").warning("it %s", "happened")
    assert (lines(out)[0]["room"], lines(out)[0]["event"]) == ("some.library", "it happened")


def test_a_disabled_level_writes_nothing(out: io.StringIO) -> None:
    logs.room("x").debug("quiet")
    logging.getLogger("some.library").info("quiet")
    assert out.getvalue() == ""


def test_on_a_terminal_a_line_is_for_people(out: io.StringIO) -> None:
    stream = io.StringIO()
    logs.setup("info", stream=stream, form="text")
    logs.room("router").bind(run="r1").warning("slow", took_ms=3)
    assert stream.getvalue().rstrip().endswith("warning router: slow run=r1 took_ms=3")


def test_what_a_client_sent_cannot_command_the_terminal(out: io.StringIO) -> None:
    stream = io.StringIO()
    logs.setup("info", stream=stream, form="text")
    logs.room("x").info("e", name="a\x1b[2J\nfake line")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
