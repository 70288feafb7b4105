"""The four steps that the server takes for a run, a script each, as in Headrace. One partition, one tag: {bare}."""

import asyncio
from collections.abc import Sequence
from typing import Any

from runtime.wire import Wire

STREAM, FACTS, PUSH, GROUP = "{bare}:requests", "{bare}:facts", "{bare}:push", "workers"
_LIFE = 300  # seconds that an ended run is kept


def run_key(run: str) -> str:
    return "{bare}:run:" + run


def reply_key(run: str) -> str:
    return "{bare}:reply:" + run


#: KEYS run, requests  ARGV run id, body
ACCEPT = f"""
redis.call('HSET', KEYS[1], 'state', 'waiting', 'seq', 0, 'body', ARGV[2])
redis.call('EXPIRE', KEYS[1], {_LIFE})
return redis.call('XADD', KEYS[2], '*', 'run', ARGV[1], 'body', ARGV[2])
"""

#: KEYS run  ARGV owner
CLAIM = """
if redis.call('HGET', KEYS[1], 'state') ~= 'waiting' then return 'lost' end
redis.call('HSET', KEYS[1], 'state', 'running', 'owner', ARGV[1])
return 'ok'
"""

#: KEYS of each run: run, reply  ARGV push, owner, then of each run: its head in the push, sequence, bytes
FLUSH = """
local heads, bytes, out, n = {}, {}, {}, 0
for i = 1, #KEYS, 2 do
  local a, r = (i - 1) / 2 * 3 + 3, redis.call('HMGET', KEYS[i], 'owner', 'state', 'seq')
  if r[1] == ARGV[2] and r[2] == 'running' and r[3] + 1 == tonumber(ARGV[a + 1]) then
    redis.call('XADD', KEYS[i + 1], '1-' .. ARGV[a + 1], 'd', ARGV[a + 2])
    redis.call('HSET', KEYS[i], 'seq', ARGV[a + 1])
    n = n + 1
    heads[n], bytes[n], out[(i + 1) / 2] = ARGV[a], ARGV[a + 2], 'ok'
  else
    out[(i + 1) / 2] = 'lost'
  end
end
redis.call('SPUBLISH', ARGV[1], table.concat(heads, ' ') .. '\\n' .. table.concat(bytes))
return out
"""

#: KEYS run, reply, requests, facts  ARGV push, owner, head in the push, sequence, bytes, entry, group, run id
END = f"""
local r = redis.call('HMGET', KEYS[1], 'owner', 'state', 'seq')
if r[1] ~= ARGV[2] or r[2] ~= 'running' or r[3] + 1 ~= tonumber(ARGV[4]) then return 'lost' end
redis.call('XADD', KEYS[2], '1-' .. ARGV[4], 'd', ARGV[5])
redis.call('HSET', KEYS[1], 'seq', ARGV[4], 'state', 'ended')
redis.call('HDEL', KEYS[1], 'body')
redis.call('EXPIRE', KEYS[1], {_LIFE})
redis.call('EXPIRE', KEYS[2], {_LIFE})
redis.call('XACK', KEYS[3], ARGV[7], ARGV[6])
redis.call('XDEL', KEYS[3], ARGV[6])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', 10000, '*', 'run', ARGV[8])
redis.call('SPUBLISH', ARGV[1], ARGV[3] .. '\\n' .. ARGV[5])
return 'ok'
"""


def head(run: str, size: int, *, last: bool) -> str:
    """What stands before `size` bytes of a run in a push."""
    return f"{run}:{size}:{'end' if last else 'data'}"


class Steps:
    """The scripts on one connection."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._sha: dict[str, bytes] = {}

    async def load(self) -> "Steps":
        """Once, before the first call."""
        for text in (ACCEPT, CLAIM, FLUSH, END):
            self._sha[text] = await self._wire.send(("SCRIPT", "LOAD", text))
        return self

    def take(self, script: str, keys: Sequence[str], arguments: Sequence[str | bytes]) -> asyncio.Future[Any]:
        """The future of its reply."""
        return self._wire.send(("EVALSHA", self._sha[script], len(keys), *keys, *arguments))
