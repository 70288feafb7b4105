"""All settings of the house in one tree: every room's section, composed here and nowhere else.

headrace.yaml section   model                                        where it is explained
server                  ingress.settings.ServerSettings              the door
redis, postgres         runtime.app, storage.settings                the servers
runs                    runtime.app                                  bounds of admission, draining
secrets, data           here                                         the key ring, the data directory
processes, partitions   here                                         which rooms share a process
admin, log, metrics     here                                         what operators touch
authorization, guardrails, router, audit, provisioner                each room's own settings.py
models                  console.entries.ModelEntry, a list           desired state
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from base import settings as loader
from base.ids import MAX_PARTITIONS
from base.settings import Section, SettingsError
from console.entries import ModelEntry
from console.secrets import check_token, ring_text
from console.stack import LAYOUTS, LayoutError, check_layout
from ingress.settings import ServerSettings
from runtime.app import RedisSettings, RunSettings
from storage.settings import PostgresSettings
from workers.audit.settings import AuditSettings
from workers.authorization.settings import AuthorizationSettings
from workers.guardrails.settings import GuardrailSettings
from workers.provisioner.settings import ProvisionerSettings
from workers.router.settings import RouterSettings

FILE, DOTENV = "headrace.yaml", ".env"
#: Variables by the names that other houses use -> our setting. Those of UNUSED are accepted and do nothing yet.
WELL_KNOWN = {
    "REDIS_URL": "redis.url",
    "DATABASE_URL": "postgres.dsn",
    "PG_ADMIN_USER": "postgres.admin_user",
    "PG_ADMIN_PASSWORD": "postgres.admin_password",
    "SECRET_ENCRYPTION_KEY": "secrets.keyring",
    "INTERNAL_API_KEY": "secrets.internal_api_key",
}
UNUSED = ("JWT_SECRET_KEY", "SUPERADMIN_EMAIL", "SUPERADMIN_PASSWORD")


class SecretSettings(Section):
    """What must not be known outside."""

    keyring: SecretStr = Field(
        SecretStr(""),
        description="SECRET_ENCRYPTION_KEY: 32 random bytes in base64 (one key, named k1), or several as "
        "`k2:BASE64,k1:BASE64`, the current one first. Empty: the embedded default makes its own in the data "
        "directory; own servers need one.",
    )
    internal_api_key: SecretStr = Field(
        SecretStr(""),
        description="INTERNAL_API_KEY: an admin key that other services know, made by `headrace secrets`; it is "
        "recorded with the first keys instead of a random one.",
    )

    @field_validator("keyring")
    @classmethod
    def _ring(cls, given: SecretStr) -> SecretStr:
        return SecretStr(ring_text(given.get_secret_value()))

    @model_validator(mode="after")
    def _minted(self) -> SecretSettings:
        if token := self.internal_api_key.get_secret_value():
            check_token(token, self.keyring.get_secret_value())
        return self


class LogSettings(Section):
    """What the processes say."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is written.")
    form: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, else JSON lines.")


class MetricSettings(Section):
    """Where each process answers /livez, /readyz and /metrics."""

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 in a container.")
    port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of ingress; other processes add the place of their first room (authorization 1, rules 2 "
        "and so on). 0: any free ones.",
    )


class AdminSettings(Section):
    """The operator's API."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(0, ge=0, le=65535, description="Port; 0: any free one.")
    rotation_overlap_s: int = Field(86_400, ge=0, description="Seconds an old secret stays valid after a rotation.")


class DataSettings(Section):
    """Where this machine keeps things."""

    directory: Path = Field(Path(".headrace"), description="Data of the embedded servers, logs, connection.json.")


class Settings(Section):
    """The whole of headrace.yaml."""

    server: ServerSettings = Field(default_factory=ServerSettings, description="The door.")
    redis: RedisSettings = Field(default_factory=RedisSettings, description="The server that carries the streams.")
    runs: RunSettings = Field(default_factory=RunSettings, description="How many runs are taken in, for how long.")
    postgres: PostgresSettings = Field(default_factory=PostgresSettings, description="The record.")
    secrets: SecretSettings = Field(default_factory=SecretSettings, description="The key ring.")
    processes: tuple[tuple[str, ...], ...] = Field(
        LAYOUTS["merged"],
        description="Which rooms share a process; each inner list is one process. A room that reads groups may stand "
        "in several; ingress and console stand once.",
    )
    partitions: int = Field(
        1, ge=1, le=MAX_PARTITIONS, description="Hash tags that runs are spread over; 1 for one server."
    )
    admin: AdminSettings = Field(default_factory=AdminSettings, description="The operator's API.")
    authorization: AuthorizationSettings = Field(default_factory=AuthorizationSettings, description="Room 1.")
    guardrails: GuardrailSettings = Field(default_factory=GuardrailSettings, description="Room 2.")
    router: RouterSettings = Field(default_factory=RouterSettings, description="Room 3.")
    audit: AuditSettings = Field(default_factory=AuditSettings, description="Room 4, with the prices.")
    provisioner: ProvisionerSettings = Field(default_factory=ProvisionerSettings, description="Room 5.")
    models: tuple[ModelEntry, ...] = Field((), description="What should be served; desired state.")
    log: LogSettings = Field(default_factory=LogSettings, description="What the processes say.")
    metrics: MetricSettings = Field(default_factory=MetricSettings, description="Health and metrics.")
    data: DataSettings = Field(default_factory=DataSettings, description="Where this machine keeps things.")

    @model_validator(mode="after")
    def _whole(self) -> Settings:
        try:
            check_layout(self.processes)
        except LayoutError as error:
            raise ValueError(str(error)) from None
        deployments = [entry.id for entry in self.models]
        twice = {name for name in deployments if deployments.count(name) > 1}
        if twice:
            raise ValueError(
                f"models: {', '.join(sorted(twice))} is deployed twice; give one of them a `deployment` name"
            )
        return self


def load(
    file: Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    ignored: Sequence[str] = (),
) -> Settings:
    """The settings from `file` (by default headrace.yaml of the folder, when there is one), its .env and the
    environment. ignored: names of WELL_KNOWN that count as not set. SettingsError names every mistake."""
    found, dotenv = places(file, folder)
    return loader.load(
        Settings,
        file=found,
        dotenv=dotenv,
        environ=os.environ if environ is None else environ,
        overrides=overrides,
        names={name: key for name, key in WELL_KNOWN.items() if name not in ignored},
    )


def places(file: Path | None = None, folder: Path | None = None) -> tuple[Path | None, Path]:
    """The settings file that `load` reads, None when there is none, and the .env beside it."""
    here = folder or Path()
    found = file or (here / FILE if (here / FILE).exists() else None)
    return found, (found.parent if found else here) / DOTENV


def unused_names(file: Path | None = None, environ: Mapping[str, str] | None = None) -> list[str]:
    """Variables of UNUSED that somebody has set; there are no user accounts and no sessions to use them for."""
    given = loader.variables(places(file)[1], os.environ if environ is None else environ)
    return [name for name in UNUSED if given.get(name)]


__all__ = ["Settings", "SettingsError", "load", "places", "unused_names"]
