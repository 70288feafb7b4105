"""What somebody wants done, in the imperative. A command is idempotent by its id.

Published to `commands` by the console only; the provisioner alone carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.envelope import message


@message
@dataclass(frozen=True, slots=True, kw_only=True)
class DeployModel:
    """Have `name` served. The same command_id twice is one deployment.

    target: local (a process on this machine) | external (an OpenAI-compatible URL). url: base address incl. /v1, for
    external. upstream_model: the name the engine knows, "" = ask it, else the same. credential: the sealed provider
    key (never plain). pool: where the endpoints go, by default the model's name. slots: parallel requests an endpoint
    takes. weight: its share. private: a loopback or private address is meant. command: argv for target local.
    replicas: engines of it, target local only; 0 = none for now. restart: always | on-failure | never, what follows
    when an engine ends by itself. continues: how it goes on with an answer that broke off, one of records.CONTINUES.
    on_disconnect: what its runs' clients leave behind, "" = as the server says. speaks: the APIs in which its engines
    may be asked for a response, of records.SPEAKS_CHAT and SPEAKS_RESPONSES.
    """

    command_id: str
    deployment: str
    name: str
    target: str
    url: str = ""
    upstream_model: str = ""
    credential: str = ""
    pool: str = ""
    slots: int = 8
    weight: int = 1
    private: bool = False
    command: tuple[str, ...] = ()
    replicas: int = 1
    restart: str = "always"
    continues: str = ""
    on_disconnect: str = ""
    speaks: tuple[str, ...] = ("chat",)
    version: int = 1


@message
@dataclass(frozen=True, slots=True, kw_only=True)
class StopDeployment:
    """Take `deployment` out of rotation, let its requests finish, then end what it runs. now: do not wait for them."""

    command_id: str
    deployment: str
    now: bool = False
    version: int = 1


@message
@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleDeployment:
    """Have `replicas` engines of `deployment`, which stands on target local. 0: none for now, the model stays known."""

    command_id: str
    deployment: str
    replicas: int
    version: int = 1
