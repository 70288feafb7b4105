"""The same chats by the official client, which takes a body's clean end for a whole answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from time import monotonic
from typing import Any

import openai
from openai import AsyncOpenAI

from bench.faults import wire
from bench.faults.said import Said
from bench.faults.wire import OnEvent


async def ask(
    client: AsyncOpenAI, head: Mapping[str, str], body: Mapping[str, Any], said: Said, patience: float, on: OnEvent
) -> None:
    """One chat until the client says that it is over, by an end or by an exception."""
    await wire.door(str(client.base_url))
    said.sent_at = monotonic()
    try:
        async with asyncio.timeout(patience):
            await _ask(client, dict(head), dict(body), said, on)
        said.clean = True
    except openai.APIStatusError as error:
        said.clean, said.status, said.code = True, error.status_code, error.code or "none"
        said.run = error.response.headers.get("x-headrace-run", "")
    except openai.APIConnectionError:
        said.cut = True
    except openai.APIError as error:
        said.clean, said.code = True, error.code or "none"
    except TimeoutError:
        said.late = True
    except Exception as error:  # the client has no class for what it cannot read
        said.cut, said.garbage = _is_cut(error), "" if _is_cut(error) else repr(error)
    said.ended_at = monotonic()


def _is_cut(error: Exception) -> bool:
    """The transport's own exception reaches the caller when the connection breaks inside a body."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpcore")


async def _ask(client: AsyncOpenAI, head: dict[str, str], body: dict[str, Any], said: Said, on: OnEvent) -> None:
    create = client.chat.completions.create
    if not said.stream:
        answer = await create(**body, extra_headers=head)
        said.status = 200
        said.take(answer.model_dump_json().encode())
        return
    stream = await create(**body, extra_headers=head)
    said.run, said.status = stream.response.headers.get("x-headrace-run", ""), 200
    async with aclosing(stream) as chunks:
        async for chunk in chunks:
            said.take(chunk.model_dump_json().encode())
            on(said)
