"""An entry of `models:`, the same in headrace.yaml, in the admin API and on the command line, and its command.

A command's id is derived from the entry and from what it replaces: sending it again is the same command, sending it
after a stop or another change is a new one. An entry that already stands as it is needs no command.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from base.credentials import open_credential, seal_credential
from base.crypto import CryptoError, KeyRing, Sealer, digest
from base.settings import Section
from policy.disconnect import OR_NOTHING, stated
from providers.addresses import refuse_address, refuse_url
from schemas.commands import DeployModel, ScaleDeployment, StopDeployment
from schemas.records import DeploymentRecord
from schemas.routes import MODERATIONS_POOL

_ENDED = ("stopping", "stopped")
MOST_REPLICAS = 1_000
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")
_MODEL = r"^[A-Za-z0-9._/@:+-]{1,128}$"
_NO_NUL = r"^[^\x00]*$"
_DEPLOYMENT = r"^$|^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


class ModelEntry(Section):
    """One model that should be served: at a URL, or by a command on this machine."""

    name: str = Field(pattern=_MODEL, description="The name clients ask for.")
    url: str = Field("", description="Base address of an OpenAI-compatible server, including /v1.")
    command: tuple[Annotated[str, Field(pattern=_NO_NUL)], ...] = Field(
        (), description="Instead of url: a program to run; {port} becomes its port."
    )
    api_key: SecretStr = Field(SecretStr(""), description="The key that server asks for; stored sealed.")
    upstream_model: str = Field(
        "", max_length=256, pattern=_NO_NUL, description="What that server calls the model; empty: ask it."
    )
    deployment: str = Field("", pattern=_DEPLOYMENT, description="Name of the deployment; by default the model's.")
    pool: str = Field(
        "", pattern=r"^$|" + _MODEL, description="Endpoints of a pool share its work; default: the model."
    )
    slots: int = Field(8, strict=True, ge=1, le=10_000, description="Requests the engine takes at once.")
    weight: int = Field(1, strict=True, ge=1, le=1_000, description="The engine's share within its pool.")
    private: bool = Field(False, strict=True, description="The URL's name may lead to a loopback or private address.")
    replicas: int | None = Field(
        None,
        strict=True,
        ge=0,
        le=MOST_REPLICAS,
        description="Engines to run, for command; empty: as it was scaled, else one.",
    )
    restart: Literal["always", "on-failure", "never"] = Field(
        "always", description="For command: what follows when the engine ends by itself; exit code 0 is no failure."
    )
    continues: Literal["", "continue_final_message", "prefill"] = Field(
        "",
        description="How the engine goes on with an answer that broke off: continue_final_message (vLLM, SGLang), "
        "prefill (llama.cpp); empty: it does not.",
    )
    speaks: tuple[Literal["chat", "responses"], ...] = Field(
        ("chat",),
        min_length=1,
        description="The APIs in which the engine can be asked for a response: chat (all), responses (its own).",
    )
    on_disconnect: Annotated[str, BeforeValidator(stated)] = Field(
        "",
        pattern=OR_NOTHING,
        description="When the last client of one of its runs leaves: cancel, finish, grace:<seconds>; a key's own "
        "goes before it; empty: what server.on_disconnect says.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> ModelEntry:
        if MODERATIONS_POOL in (self.name, self.pool):
            raise ValueError(f"the pool {MODERATIONS_POOL} is the gateway's own: choose another name")
        if bool(self.url) == bool(self.command):
            raise ValueError("give either url or command")
        if self.url and self.replicas not in (None, 1):
            raise ValueError("replicas run here; a url is one endpoint: add another deployment for each server")
        private = self.private or _says_private(self.url)
        if self.url and (reason := refuse_url(self.url, bool(self.api_key.get_secret_value()), private)):
            raise ValueError(reason)
        if reason := _refuse_host(self.url, private):
            raise ValueError(reason)
        return self

    @property
    def id(self) -> str:
        """The deployment's name."""
        return self.deployment or _NOT_IN_NAMES.sub("-", self.name).lstrip("._-") or "model"

    @property
    def target(self) -> Literal["local", "external"]:
        return "local" if self.command else "external"


def deploy(entry: ModelEntry, known: DeploymentRecord | None, ring: KeyRing, sealer: Sealer) -> DeployModel | None:
    """The command that makes `known` (the present deployment of that name) what the entry says; None when it is."""
    if known is not None and known.state not in _ENDED and _stands(entry, known, sealer):
        return None
    return DeployModel(
        command_id=_id(ring, "deploy", _canonical(entry), _generation(known)),
        deployment=entry.id,
        name=entry.name,
        target=entry.target,
        url=entry.url.rstrip("/"),
        upstream_model=entry.upstream_model,
        credential=seal_credential(sealer, entry.id, entry.api_key.get_secret_value()),
        pool=entry.pool or entry.name,
        slots=entry.slots,
        weight=entry.weight,
        private=entry.private or _says_private(entry.url),
        command=entry.command,
        replicas=_replicas(entry, known),
        restart=entry.restart,
        continues=entry.continues,
        on_disconnect=entry.on_disconnect,
        speaks=entry.speaks,
    )


def stop(known: DeploymentRecord, ring: KeyRing, *, now: bool = False) -> StopDeployment:
    """The command that ends a deployment. now: without waiting for its requests."""
    id = _id(ring, "stop now" if now else "stop", known.deployment, known.command_id)
    return StopDeployment(command_id=id, deployment=known.deployment, now=now)


def scale(known: DeploymentRecord, replicas: int, ring: KeyRing) -> ScaleDeployment | None:
    """The command that gives a deployment so many engines; None when it has them and none has failed."""
    if known.replicas == replicas and known.state != "failed":
        return None
    id = _id(ring, "scale", known.deployment, known.command_id, str(replicas))
    return ScaleDeployment(command_id=id, deployment=known.deployment, replicas=replicas)


def _replicas(entry: ModelEntry, known: DeploymentRecord | None) -> int:
    """What the entry says; where it says nothing, as it stands."""
    if entry.replicas is not None:
        return entry.replicas
    return known.replicas if known is not None and known.state not in _ENDED and known.command else 1


def _stands(entry: ModelEntry, known: DeploymentRecord, sealer: Sealer) -> bool:
    """Whether the deployment is what the entry asks for, its credential included."""
    try:
        credential = open_credential(sealer, known.deployment, known.credential)
    except CryptoError:
        return False
    wanted = (entry.name, entry.url.rstrip("/"), entry.command, entry.upstream_model, entry.pool or entry.name)
    stands = (known.name, known.url, known.command, known.upstream_model, known.pool)
    wanted_habits = (entry.restart, entry.continues, entry.on_disconnect, entry.speaks)
    habits = wanted_habits == (known.restart, known.continues, known.on_disconnect, known.speaks)
    figures = (entry.slots, entry.weight, entry.private or _says_private(entry.url), _replicas(entry, known))
    same = wanted == stands and figures == (known.slots, known.weight, known.private, known.replicas)
    return same and habits and credential == entry.api_key.get_secret_value()


def _generation(known: DeploymentRecord | None) -> str:
    """What the command replaces."""
    if known is None:
        return ""
    return f"{known.command_id} {known.updated_ms if known.state == 'stopped' else known.state in _ENDED}"


def _canonical(entry: ModelEntry) -> str:
    shown = entry.model_dump(mode="json", exclude={"api_key"})
    return json.dumps({**shown, "api_key": entry.api_key.get_secret_value()}, sort_keys=True)


def _id(ring: KeyRing, *parts: str) -> str:
    """32 hexadecimal digits; keyed, so that an id says nothing about the key inside the entry."""
    secret = ring.derive(ring.current, "command-id").hex()
    return digest("\0".join((secret, *parts)).encode())[:32]


def _refuse_host(url: str, private: bool) -> str:
    """Why the address in a URL can never be called, or ""; a name is judged when it is connected to."""
    host = urlsplit(url).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return ""
    return refuse_address(host, private)


def _says_private(url: str) -> bool:
    """Whether the URL itself names this machine or a private address: then it is meant."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False  # refuse_url has the words for it
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
