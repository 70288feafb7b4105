"""What a client saw of one streamed chat over a plain socket, and waiting until no group has anything left to do."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.house import House, until


@dataclass
class Seen:
    """What a client saw of one streamed request."""

    run: str = ""
    status: int = 0
    tokens: int = 0
    done: bool = False
    code: str = ""
    cut: bool = False
    events: list[str] = field(default_factory=list)

    @property
    def ended_well(self) -> bool:
        """A whole answer, or an error with a code; never a clean end that is neither."""
        return self.done != bool(self.code)


def ask(house: House, prompt: str, tokens: int = 6, timeout: float = 70) -> Seen:
    """One streamed chat over a plain socket, read to its end."""
    seen = Seen()
    address = urllib.parse.urlsplit(house.base_url)
    line = http.client.HTTPConnection(str(address.hostname), address.port, timeout=timeout)
    body = {"model": "mock", "stream": True, "max_tokens": tokens, "messages": [{"role": "user", "content": prompt}]}
    try:
        headers = {"authorization": f"Bearer {house.key}", "content-type": "application/json"}
        line.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        reply = line.getresponse()
        seen.status, seen.run = reply.status, reply.getheader("x-request-id") or ""
        if reply.status != 200:
            seen.code = json.loads(reply.read())["error"]["code"] or "none"
            return seen
        rest = b""
        while piece := reply.read1(65536):  # raises at a cut; iterating over lines would take it for the end
            *lines, rest = (rest + piece).split(b"\n")
            for raw in lines:
                _take(seen, raw.decode().strip())
    except (http.client.HTTPException, OSError):
        seen.cut = True
    finally:
        line.close()
    return seen


def _take(seen: Seen, line: str) -> None:
    if not line.startswith("data: "):
        return
    seen.events.append(line)
    if line == "data: [DONE]":
        seen.done = True
        return
    chunk: dict[str, Any] = json.loads(line[6:])
    if "error" in chunk:
        seen.code = chunk["error"]["code"] or "none"
    elif chunk.get("choices") and chunk["choices"][0]["delta"].get("content"):
        seen.tokens += 1


def quiet(house: House) -> None:
    """Nothing is left in any group: every entry was handled by somebody."""

    def idle() -> bool:
        try:
            status, found = house.request("/admin/v1/lag")
        except OSError:
            return False
        rows = found["data"] if status == 200 and "data" in found else found.get("groups", [])
        return status == 200 and bool(rows) and all(row["pending"] == 0 and row["lag"] == 0 for row in rows)

    until(idle, 40)
