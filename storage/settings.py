"""Settings of the record: section `postgres` of headrace.yaml."""

from __future__ import annotations

from pydantic import Field, SecretStr, model_validator

from base.settings import Section


class PostgresSettings(Section):
    """Where the record lies and how long anybody waits for it."""

    dsn: str = Field(
        default="",
        description="DATABASE_URL: postgresql://user:password@host:port/database. Empty: the embedded server that "
        "`headrace up` starts. The user owns the database, migrates it, and is a member of `role`; it needs no other "
        "right.",
        repr=False,
    )
    admin_user: str = Field(
        default="",
        description="PG_ADMIN_USER: who makes role and database in `headrace init`, on the server of `dsn`; nothing "
        "else uses it. Empty: both are there already.",
    )
    admin_password: SecretStr = Field(default=SecretStr(""), description="PG_ADMIN_PASSWORD: its password.")
    admin_dsn: SecretStr = Field(
        default=SecretStr(""),
        description="Another address for the administrator, where user and password do not say it all.",
    )
    role: str = Field(
        default="headrace_app",
        description="The role in which the service works. It must not be able to bypass row-level security.",
    )
    allow_plaintext: bool = Field(
        default=False, description="Speak to a server on another machine without TLS, where the way to it is safe."
    )
    pool_size: int = Field(default=4, ge=1, le=200, description="Connections a process may hold.")
    connect_timeout: float = Field(default=2.0, gt=0, description="Seconds to wait for a new connection.")
    statement_timeout: float = Field(default=10.0, gt=0, description="Seconds to wait for a statement.")
    acquire_timeout: float = Field(default=3.0, gt=0, description="Seconds to wait for a free connection.")

    @model_validator(mode="after")
    def _administrator(self) -> PostgresSettings:
        if bool(self.admin_user) != bool(self.admin_password.get_secret_value()):
            raise ValueError("PG_ADMIN_USER and PG_ADMIN_PASSWORD (admin_user, admin_password) go together: set both")
        if self.admin_user and self.admin_dsn.get_secret_value():
            raise ValueError("name the administrator once: by PG_ADMIN_USER and PG_ADMIN_PASSWORD, or by admin_dsn")
        return self
