"""Child for test_poison_kills: a worker of group `rules` that dies by SIGKILL when it is handed one run, as a fault in
a native library would have it. It notes every start in the list `started`.

    python -m tests.integration.poison_program URL RUN
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from schemas.outcomes import Delivery, Done, Outcome
from tests.engine_support import House
from tests.run_support import RedisWorld


async def work(url: str, deadly: str) -> None:
    """Until it dies or is ended."""
    world = RedisWorld(url)
    await world.start()

    async def handle(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        await world.redis.execute("RPUSH", "started", *(delivery.run for delivery in deliveries))
        if any(delivery.run == deadly for delivery in deliveries):
            os.kill(os.getpid(), signal.SIGKILL)
        return [Done() for _ in deliveries]

    await House(world).engine(handle, name=f"worker-{os.getpid()}")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
