"""All repositories over one pool."""

from __future__ import annotations

from storage.archive import PostgresArchive
from storage.catalog import PostgresCatalog
from storage.deployments import PostgresDeployments
from storage.keys import PostgresKeys
from storage.pool import Pool
from storage.ports import Store
from storage.requests import PostgresRequests


def postgres_store(pool: Pool) -> Store:
    """The record in PostgreSQL. The pool stays its caller's to close."""
    return Store(
        keys=PostgresKeys(pool),
        deployments=PostgresDeployments(pool),
        catalog=PostgresCatalog(pool),
        requests=PostgresRequests(pool),
        archive=PostgresArchive(pool),
    )
