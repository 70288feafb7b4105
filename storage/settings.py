"""Settings of the record: section `postgres` of headrace.yaml."""

from __future__ import annotations

from pydantic import Field

from base.settings import Section


class PostgresSettings(Section):
    """Where the record lies and how long anybody waits for it."""

    dsn: str = Field(
        default="",
        description="postgresql://user:password@host:port/database. Empty: the embedded server that `headrace up` "
        "starts. The user migrates and must be a superuser, or be able to create roles.",
        repr=False,
    )
    role: str = Field(
        default="headrace_app",
        description="The role in which the service works. It must not be able to bypass row-level security.",
    )
    pool_size: int = Field(default=4, ge=1, le=200, description="Connections a process may hold.")
    connect_timeout: float = Field(default=2.0, gt=0, description="Seconds to wait for a new connection.")
    statement_timeout: float = Field(default=10.0, gt=0, description="Seconds to wait for a statement.")
    acquire_timeout: float = Field(default=3.0, gt=0, description="Seconds to wait for a free connection.")
