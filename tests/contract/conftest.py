"""One suite, two implementations: `world` is the memory twin, then a real cluster-enabled Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.run_support import Hands, World, open_world


@pytest_asyncio.fixture(params=["memory", "valkey"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Delivery, empty."""
    url = request.getfixturevalue("valkey_cluster") if request.param == "valkey" else ""
    async with open_world(request.param, lambda: url) as opened:
        yield opened


@pytest.fixture
def hands(world: World) -> Hands:
    """One run's hands in that world."""
    return Hands(world)
