"""Every key of a running house is on one of the two lists for readers: runtime/names.py and state/__init__.py."""

from __future__ import annotations

import re

from openai import OpenAI

import runtime.names
import state
from base.ids import SystemRandom
from console.launch import embedded_servers, read_secrets
from tests.e2e.house import House
from tests.e2e.scripted import ScriptedEngine

_PARTITION, _PLACE = r"\{p\}", re.compile(r"<[a-z]+>|\\\.\\\.\\\.")  # as they stand in an escaped name


def listed() -> list[re.Pattern[str]]:
    """The keys of both lists, as patterns."""
    text = f"{runtime.names.__doc__}{state.__doc__}"
    rows = re.findall(r"^    (\S+(?:, \S+)*) +(?:string|hash|zset|set|stream|channel)s? ", text, re.MULTILINE)
    escaped = [re.escape(name).replace(_PARTITION, r"\{[0-9.]+\}") for row in rows for name in row.split(", ")]
    return [re.compile(_PLACE.sub(".+", name)) for name in escaped]


def test_every_key_that_the_house_uses_is_listed(house: House, client: OpenAI, lab: ScriptedEngine) -> None:
    key = {"Idempotency-Key": "listed"}
    client.chat.completions.create(
        model="lab/scripted", messages=[{"role": "user", "content": "hello"}], extra_headers=key
    )
    valkey, _ = embedded_servers(house.folder, read_secrets(house.folder, SystemRandom()))
    valkey.attach()
    keys = re.findall(r"\$\d+\r\n(.+)\r\n", valkey.ask("KEYS", "*").decode())
    assert {"commands", "control", "processes", "{endpoints}:inflight"} <= set(keys)
    known = listed()
    assert [key for key in keys if not any(pattern.fullmatch(key) for pattern in known)] == []
