"""Models and endpoints in PostgreSQL. Implements ports.Catalog."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.records import EndpointRecord, ModelRecord
from storage.access import OPERATOR
from storage.pool import Pool
from storage.rows import Table

MODELS = Table(ModelRecord)
ENDPOINTS = Table(EndpointRecord)


class PostgresCatalog:
    """Tables models and endpoints."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def put(self, models: Sequence[ModelRecord] = (), endpoints: Sequence[EndpointRecord] = ()) -> None:
        async with self._pool.transaction(OPERATOR) as work:
            for endpoint in endpoints:
                await work.run("put_endpoint", *ENDPOINTS.values(endpoint))
            for model in models:
                await work.run("put_model", *MODELS.values(model))

    async def remove(self, models: Sequence[str] = (), endpoints: Sequence[str] = ()) -> None:
        async with self._pool.transaction(OPERATOR) as work:
            await work.run("remove_models", list(models))
            await work.run("remove_endpoints", list(endpoints))

    async def models(self) -> Sequence[ModelRecord]:
        async with self._pool.transaction(OPERATOR) as work:
            return [MODELS.build(row) for row in await work.rows("list_models")]

    async def endpoints(self, pool: str | None = None) -> Sequence[EndpointRecord]:
        async with self._pool.transaction(OPERATOR) as work:
            return [ENDPOINTS.build(row) for row in await work.rows("list_endpoints", pool)]
