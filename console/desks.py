"""What an operator does to keys and models, in the order that keeps it safe. Used by the admin API and by `up`.

A key:   PostgreSQL first (the record), then the projection in Redis, then KeyChanged, so nobody reads an old one after
         the news. If Redis is away a new key works all the same (doors ask PostgreSQL); a revocation says so and may
         be repeated.
A model: DeployModel, ScaleDeployment or StopDeployment on `commands`; the provisioner does the rest. There is no
         other way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import BeforeValidator, Field, field_validator

from base import logs
from base.clock import Clock
from base.crypto import KeyRing, Sealer
from base.ids import Random
from base.settings import Section
from console.entries import ModelEntry, deploy, scale, stop
from policy.api_keys import ENTROPY_BYTES, adopt, mint
from policy.disconnect import OR_NOTHING, stated
from policy.roles import SCOPES, unknown_scopes
from runtime.app import Context
from schemas.errors import Code, Refusal, Unavailable
from schemas.events import KeyChanged
from schemas.ports import Publisher
from schemas.records import INFERENCE, DeploymentRecord, KeyRecord
from storage.access import OPERATOR
from storage.ports import Deployments, Keys, Store

log = logs.room("console")
_PATTERN = r"^[A-Za-z0-9._/@:+*-]{1,128}$"


class KeyWish(Section):
    """What a new key should be."""

    name: str = Field(
        min_length=1, max_length=200, pattern=r"^[^\x00]*$", description="For people: who or what uses it."
    )
    tenant: str = Field("default", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="The organization it belongs to.")
    scopes: tuple[str, ...] = Field((INFERENCE,), min_length=1, description="inference, admin.")
    models: tuple[str, ...] = Field(("*",), min_length=1, max_length=1000, description="Names or patterns with *.")
    requests_per_minute: int = Field(0, strict=True, ge=0, le=1_000_000, description="0: no limit.")
    concurrency: int = Field(0, strict=True, ge=0, le=1_000_000, description="Requests at once; 0: no limit.")
    weight: int = Field(1, strict=True, ge=1, le=1_000, description="Share of the tenant when engines are scarce.")
    priority: int = Field(
        0, strict=True, ge=-10, le=10, description="Which of its tenant's waiting requests goes first: the higher."
    )
    lane: Literal["interactive", "batch"] = Field("interactive", description="Which queue its requests join.")
    on_disconnect: Annotated[str, BeforeValidator(stated)] = Field(
        "",
        pattern=OR_NOTHING,
        description="What happens to a run when its last client leaves: cancel, finish, grace:<seconds>; empty: what "
        "its model says, else server.on_disconnect.",
    )
    expires_in_s: int = Field(0, strict=True, ge=0, le=315_360_000, description="Seconds until it ends; 0: never.")

    @field_validator("scopes")
    @classmethod
    def _known_scopes(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := unknown_scopes(scopes):
            raise ValueError(f"unknown scopes: {', '.join(unknown)}; known: {', '.join(sorted(SCOPES))}")
        return scopes

    @field_validator("models")
    @classmethod
    def _names(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        if bad := [name for name in models if not re.fullmatch(_PATTERN, name)]:
            raise ValueError(f"{len(bad)} of the models is no name or pattern (A-Z a-z 0-9 . _ / @ : + - and *)")
        return models


class Projection(Protocol):
    """Key records as every process reads them: state/keys.py."""

    async def project(self, record: KeyRecord) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A key and its token, which exists only here."""

    record: KeyRecord
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDesk:
    """Making, rotating and ending keys. Unavailable when PostgreSQL is away."""

    keys: Keys
    projection: Projection
    publisher: Publisher
    ring: KeyRing
    clock: Clock
    chance: Random

    async def create(self, wish: KeyWish, token: str = "") -> NewToken:
        """A new key; its token is shown this once. token: minted before, "" mints one. ValueError for a foreign one."""
        minted = adopt(token, self.ring) if token else mint(self.chance.bytes(ENTROPY_BYTES), self.ring)
        now = self.clock.now_ms()
        record = KeyRecord(
            key_id=minted.credential.key_id,
            secret_mac=minted.credential.secret_mac,
            mac_kid=minted.credential.mac_kid,
            created_ms=now,
            expires_ms=now + wish.expires_in_s * 1000 if wish.expires_in_s else 0,
            **wish.model_dump(exclude={"expires_in_s"}),
        )
        if not await self.keys.create(OPERATOR, record):
            raise Refusal.of(Code.internal_error, "The new key's id was taken already; send the request again.")
        await self._tell_if_possible(record)
        log.info("key created", key_id=record.key_id, tenant=record.tenant)
        return NewToken(record=record, token=minted.token)

    async def rotate(self, key_id: str, overlap_s: int) -> NewToken:
        """A new secret under the same id; the old one stays valid for overlap_s seconds. Refusal(not_found)."""
        known = await self.keys.find(key_id)
        if known is None or known.revoked_ms:
            raise _no_key(key_id)
        minted = mint(self.chance.bytes(ENTROPY_BYTES), self.ring, key_id=key_id)
        until, shown = self.clock.now_ms() + overlap_s * 1000, minted.credential
        record = await self.keys.rotate(OPERATOR, key_id, shown.secret_mac, shown.mac_kid, until)
        if record is None:
            raise _no_key(key_id)
        await self._tell_if_possible(record)
        log.info("key rotated", key_id=key_id, tenant=record.tenant)
        return NewToken(record=record, token=minted.token)

    async def revoke(self, key_id: str) -> KeyRecord:
        """End it everywhere. Refusal(not_found); Unavailable when it is recorded but could not be announced: repeat."""
        record = await self.keys.revoke(OPERATOR, key_id, self.clock.now_ms())
        if record is None:
            raise _no_key(key_id)
        await self._tell(record)
        log.info("key revoked", key_id=key_id, tenant=record.tenant)
        return record

    async def _tell(self, record: KeyRecord) -> None:
        await self.projection.project(record)
        await self.publisher.publish("control", KeyChanged(key_id=record.key_id))

    async def _tell_if_possible(self, record: KeyRecord) -> None:
        """A token that was just made must reach its owner, whatever Redis does."""
        try:
            await self._tell(record)
        except Unavailable as error:
            log.warning(
                "key stored but not announced; doors find it in PostgreSQL", key_id=record.key_id, reason=str(error)
            )


def _no_key(key_id: str) -> Refusal:
    return Refusal.of(
        Code.not_found, f"There is no key {key_id[:64]!r} in use. `headrace keys list` shows all.", param="key_id"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDesk:
    """Asking the provisioner for deployments and their end."""

    deployments: Deployments
    publisher: Publisher
    ring: KeyRing
    sealer: Sealer

    async def add(self, entry: ModelEntry) -> str:
        """Ask for it; the deployment's name. Refusal when that name serves another model."""
        known = await self.deployments.find(entry.id)
        if known is not None and known.name != entry.name and known.state != "stopped":
            raise Refusal.of(
                Code.invalid_request,
                f"The deployment {entry.id!r} serves {known.name!r}; stop it first or give this one another name.",
                param="deployment",
            )
        command = deploy(entry, known, self.ring, self.sealer)
        if command is not None:
            await self.publisher.publish("commands", command, id=command.command_id)
        return entry.id

    async def stop(self, deployment: str, *, now: bool = False) -> DeploymentRecord:
        """Ask for its end; how it stood. now: without waiting for its requests, also when it drains already.
        Refusal(not_found)."""
        known = await self._known(deployment)
        if known.state not in ("stopping", "stopped") or (now and known.state == "stopping" and known.drain):
            command = stop(known, self.ring, now=now)
            await self.publisher.publish("commands", command, id=command.command_id)
        return known

    async def scale(self, deployment: str, replicas: int) -> str:
        """Ask for so many engines; the id of the command that stands for it. Refusal: not_found, or invalid_request
        when it cannot be scaled."""
        known = await self._known(deployment)
        if reason := _unscalable(known):
            raise Refusal.of(Code.invalid_request, reason, param="deployment")
        command = scale(known, replicas, self.ring)
        if command is None:
            return known.command_id
        await self.publisher.publish("commands", command, id=command.command_id)
        return command.command_id

    async def _known(self, deployment: str) -> DeploymentRecord:
        known = await self.deployments.find(deployment)
        if known is None:
            text = f"There is no deployment {deployment[:128]!r}. `headrace deployments list` shows all."
            raise Refusal.of(Code.not_found, text, param="deployment")
        return known

    async def apply(self, entries: Sequence[ModelEntry], *, prune: bool = False) -> list[str]:
        """Make the deployments what `models:` says; others are stopped only with `prune`. What was asked for."""
        wanted = [await self.add(entry) for entry in entries]
        if prune:
            for record in await self.deployments.list():
                if record.deployment not in wanted:
                    await self.stop(record.deployment)
        return wanted


def make_key_desk(context: Context, store: Store, projection: Projection) -> KeyDesk:
    """Over the stores of a process."""
    return KeyDesk(
        keys=store.keys,
        projection=projection,
        publisher=context.publisher("console"),
        ring=context.ring,
        clock=context.clock,
        chance=context.chance,
    )


def make_model_desk(context: Context, store: Store) -> ModelDesk:
    """Over the stores of a process."""
    return ModelDesk(
        deployments=store.deployments,
        publisher=context.publisher("console"),
        ring=context.ring,
        sealer=Sealer(context.ring, context.chance),
    )


def _unscalable(known: DeploymentRecord) -> str:
    """Why a deployment cannot have another number of engines, "" when it can."""
    name = known.deployment
    if known.target != "local":
        return f"{name} runs elsewhere ({known.url}), it is one endpoint. Add another deployment for each server."
    if known.state in ("stopping", "stopped"):
        return f"{name} is {known.state}. Add its model again with --replicas."
    return ""
