"""`headrace up` from the first check to the last process: the steps in their order, each told to the user.

Under DIR (default ./.headrace, 0700): valkey/, postgres/, engines/, logs/, rooms/ (records), up.lock,
secrets.json (what the embedded default made up for itself), keys.json (the first keys, so that a second start can
show where they are) and, only while everything is ready, connection.json. All files are 0600. On servers of the
operator's own there are no valkey/, postgres/, secrets.json and keys.json: only rooms are started, and stopped.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from base import ports
from base.clock import Clock
from base.crypto import KeyRing, new_ring_key
from base.ids import Random
from console import forks
from console.embedded import engine, minilm, processes
from console.embedded.postgres import EmbeddedPostgres, PostgresSettings
from console.embedded.valkey import EmbeddedValkey, ValkeySettings
from console.errands import run_errand
from console.stack import Access, Plan, Say, Source, Wiring
from console.supervisor import DRAIN_SECONDS, Signals, Supervisor

READY_SECONDS = 60.0  # for rooms on a busy machine; the target is ten for everything


class LaunchError(Exception):
    """Why nothing was started and what to do, in one line."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for. port 0: any free one. drain: see Supervisor."""

    data: Path
    port: int
    layout: Sequence[tuple[str, ...]]
    config: Path | None = None
    dotenv: Path | None = None
    engines: tuple[tuple[str, str], ...] = ()
    local_model: bool = True
    prune: bool = False
    host: str = "127.0.0.1"
    keyring: str = field(default="", repr=False)  # of the settings; "" takes the one in secrets.json
    own_servers: bool = False  # named by the settings; nothing embedded is started
    drain: tuple[float, float] = (DRAIN_SECONDS, DRAIN_SECONDS)
    fsync: str = "everysec"  # redis.appendfsync, for the embedded server


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the embedded default makes for itself at the first start: key ring text, server passwords."""

    keyring: str = field(repr=False)
    valkey_password: str = field(repr=False)
    postgres_password: str = field(repr=False)


@dataclass(slots=True)
class Machine:
    """Everything `up` started, in the order of its start."""

    options: Options
    supervisor: Supervisor
    servers: tuple[EmbeddedValkey, EmbeddedPostgres] | None  # None: the operator's own
    plan: Plan
    access: Access = field(default_factory=lambda: Access("", "", ()))


def launch(options: Options, wiring: Wiring, say: Say, clock: Clock, chance: Random) -> None:
    """Run until asked to stop. LaunchError, EmbeddedError, StartError, ErrandError; Stopped when asked early."""
    make_folder(options.data)
    signals = Signals()
    try:
        with only_one(options.data) as lock:
            (options.data / "connection.json").unlink(missing_ok=True)  # a killed run left it
            machine = assemble(options, wiring, signals, say, clock, chance, lock)
            try:
                bring_up(machine, wiring, signals, say, clock)
                machine.supervisor.watch()
                say("Stopping: streams that are open are finished first; Ctrl-C again to hurry")
            finally:
                bring_down(machine, signals, say)
    finally:
        signals.close()


def make_folder(data: Path) -> None:
    """The data folder, for its owner alone."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        data.chmod(0o700)
    except OSError as error:
        raise LaunchError(f"{data} cannot be used: {error.strerror}; choose another folder with --data") from None


@contextlib.contextmanager
def only_one(data: Path) -> Iterator[int]:
    """The lock of a data folder; yields its descriptor. LaunchError names the process that has it."""
    with open(data / "up.lock", "a+", opener=_private) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise LaunchError(
                f"headrace runs on {data} already (pid {handle.read().strip()}): stop that one, or use another --data"
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield handle.fileno()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def read_secrets(data: Path, chance: Random) -> Secrets:
    """The secrets of this data folder, made at the first start. LaunchError for a file that others may read."""
    path = data / "secrets.json"
    if not path.exists():
        made = Secrets(KeyRing([new_ring_key(chance, "k1")]).format(), chance.bytes(24).hex(), chance.bytes(24).hex())
        processes.write_private(path, json.dumps(_as_json(made), indent=1))
        return made
    if path.stat().st_mode & 0o077:
        raise LaunchError(f"{path} can be read by others: chmod 600 {path} and think of rotating its keys")
    try:
        kept = Secrets(**json.loads(path.read_text()))
        KeyRing.parse(kept.keyring)
    except (ValueError, TypeError) as error:
        raise LaunchError(
            f"{path} is damaged ({error}): restore it from a copy; without it the data stays sealed"
        ) from None
    return kept


def _as_json(secrets: Secrets) -> dict[str, str]:
    return {name: getattr(secrets, name) for name in Secrets.__slots__}


def check_port(port: int) -> None:
    """LaunchError names who holds the port and a free one near it."""
    if port and not ports.is_free(port):
        raise LaunchError(
            f"port {port} is taken by {ports.holder(port)}: stop it, or start with --port {ports.next_free(port)}"
        )


def assemble(
    options: Options, wiring: Wiring, signals: Signals, say: Say, clock: Clock, chance: Random, lock: int
) -> Machine:
    """Everything in place, nothing running yet; leftovers of a killed run are waited for."""
    secrets = None if options.own_servers else read_secrets(options.data, chance)
    overrides: dict[str, object] = {}
    source = Source(options.config, options.dotenv, overrides)
    supervisor = Supervisor(
        options.layout,
        wiring.run_rooms,
        source,
        options.data,
        signals=signals,
        clock=clock,
        chance=chance,
        say=say,
        closing=(lock,),
        drain=options.drain,
    )
    supervisor.end_leftovers()
    check_port(options.port)
    port = options.port or ports.free_port()
    admin = ports.next_free(port)
    overrides |= {"server.host": options.host, "server.port": port, "admin.port": admin}
    overrides["data.directory"] = str(options.data)
    if secrets is not None:
        overrides["secrets.keyring"] = options.keyring or secrets.keyring
    shown = "127.0.0.1" if options.host in ("", "0.0.0.0", "::") else options.host
    plan = make_plan(options, source, f"http://{shown}:{port}", f"http://127.0.0.1:{admin}")
    servers = embedded_servers(options.data, secrets, options.fsync) if secrets else None
    return Machine(options, supervisor, servers, plan)


def embedded_servers(data: Path, secrets: Secrets, fsync: str = "everysec") -> tuple[EmbeddedValkey, EmbeddedPostgres]:
    """The two servers of this folder, not running yet."""
    return (
        EmbeddedValkey(data / "valkey", ValkeySettings(secrets.valkey_password, fsync=fsync)),
        EmbeddedPostgres(data / "postgres", PostgresSettings(secrets.postgres_password)),
    )


def make_plan(options: Options, source: Source, base_url: str, admin_url: str) -> Plan:
    """What bootstrap has to do: which models, and which keys are known already."""
    kept = {} if options.own_servers else read_object(options.data / "keys.json")
    local = options.local_model and not options.engines and not options.own_servers
    return Plan(
        source=source,
        base_url=base_url,
        admin_url=admin_url,
        engines=options.engines,
        local_model=engine.MODEL if local and engine.is_installed() else "",
        local_embedder=minilm.MODEL if local and minilm.is_installed() else "",
        prune=options.prune,
        known_api_key=str(kept.get("api_key", "")),
        known_admin_key=str(kept.get("admin_key", "")),
        own=options.own_servers,
    )


def bring_up(machine: Machine, wiring: Wiring, signals: Signals, say: Say, clock: Clock) -> None:
    """The steps of a start. Servers first, then the database and the topology, then the rooms, then the models."""
    timed = _Timed(say, clock)
    if machine.servers is not None:
        _start_servers(machine, machine.servers, signals, say, timed)
    closing = (*signals.descriptors,)
    log = machine.options.data / "logs" / "bootstrap.log"
    with timed("own servers checked, topology applied" if machine.plan.own else "database migrated, topology applied"):
        run_errand(lambda tell: wiring.prepare(machine.plan, tell), signals, say, log=log, closing=closing)
    with timed("rooms: " + " | ".join(", ".join(group) for group in machine.options.layout)):
        forks.freeze()
        machine.supervisor.start(READY_SECONDS)
    with timed("models and keys"):
        machine.access = run_errand(lambda t: wiring.finish(machine.plan, t), signals, say, log=log, closing=closing)
    if not machine.plan.own:
        keep_keys(machine)
    machine.supervisor.on_change = lambda: write_connection(machine)
    machine.supervisor.listen()  # before connection.json says that everything is ready
    write_connection(machine)
    for line in greeting(machine):
        say(line)


def _start_servers(
    machine: Machine, servers: tuple[EmbeddedValkey, EmbeddedPostgres], signals: Signals, say: Say, timed: _Timed
) -> None:
    """Addresses are known only now; children get them by the fork."""
    for server in servers:
        machine.supervisor.servers.append(server)
        with timed(f"{server.name} under {server.folder}"):
            server.start()
        if server.adopted:
            say(f"{server.name} was left by an earlier run and is taken over (pid {server.pid})")
        signals.check()
    overrides = machine.plan.source.overrides
    assert isinstance(overrides, dict)
    overrides["redis.url"] = servers[0].fastest_url
    overrides["postgres.dsn"] = servers[1].dsn


def bring_down(machine: Machine, signals: Signals, say: Say) -> None:
    """Rooms, then models, then PostgreSQL, then Valkey: nobody loses a server it still writes to."""
    (machine.options.data / "connection.json").unlink(missing_ok=True)
    machine.supervisor.stop()
    engine.stop_all(machine.options.data / "engines")
    for server in reversed(machine.supervisor.servers):
        server.stop()
    kept = "Your servers run on, with all data" if machine.plan.own else f"The data stays in {machine.options.data}"
    say(f"Stopped. {kept}")


def keep_keys(machine: Machine) -> None:
    """Remember the first keys (0600), so that a second start can point to them."""
    access = machine.access
    kept = {
        "api_key": access.api_key or machine.plan.known_api_key,
        "admin_key": access.admin_key or machine.plan.known_admin_key,
    }
    processes.write_private(machine.options.data / "keys.json", json.dumps(kept, indent=1))


def write_connection(machine: Machine) -> None:
    """connection.json: what a script needs to use and to test this machine; written again after every restart."""
    content = {
        "base_url": machine.plan.base_url,
        "admin_url": machine.plan.admin_url,
        **_keys(machine),
        "models": list(machine.access.models),
        "pids": {
            "supervisor": os.getpid(),
            **machine.supervisor.pids(),
            **machine.access.engine_pids,
        },
        "health_ports": machine.supervisor.health_ports(),
        "processes": machine.supervisor.shapes(),
        "config": str(machine.options.config.absolute()) if machine.options.config else "",
    }
    processes.write_private(machine.options.data / "connection.json", json.dumps(content, indent=1))


def _keys(machine: Machine) -> Mapping[str, object]:
    """The two tokens as far as they are known; those of own servers are never written down but for this file."""
    if machine.plan.own:
        return {"api_key": machine.access.api_key, "admin_key": machine.access.admin_key}
    return read_object(machine.options.data / "keys.json")


def greeting(machine: Machine) -> list[str]:
    """What the user sees at the end: address, key (once) and a command that works when pasted."""
    path = (machine.options.data / "connection.json").absolute()
    fresh = machine.access.api_key != "" and machine.access.api_key != machine.plan.known_api_key
    key = machine.access.api_key if fresh else f"shown at the first start; it is in {path}"
    bearer = machine.access.api_key if fresh else _KEY_FROM_FILE.format(path=shlex.quote(str(path)))
    if machine.plan.own:
        key, bearer = "the one that `headrace init` printed", "$HEADRACE_API_KEY"
    model = machine.access.models[0] if machine.access.models else "MODEL"
    body = json.dumps(
        {"model": model, "stream": True, "max_tokens": 100, "messages": [{"role": "user", "content": "Say hello"}]}
    )
    return [
        "",
        f"Ready:  {machine.plan.base_url}/v1    (admin: {machine.plan.admin_url})",
        f"Key:    {key}",
        f"Models: {', '.join(machine.access.models) or 'none yet: headrace models add NAME --url URL'}",
        "Try:",
        f"  curl -N {machine.plan.base_url}/v1/chat/completions -H 'Content-Type: application/json' \\",
        f'    -H "Authorization: Bearer {bearer}" \\',
        f"    -d '{body}'",
        "Ctrl-C stops the rooms; your servers run on." if machine.plan.own else _CTRL_C,
    ]


_CTRL_C = "Ctrl-C stops everything and keeps the data."
_KEY_FROM_FILE = """$(sed -n 's/.*"api_key": "\\(.*\\)".*/\\1/p' {path})"""


def read_object(path: Path) -> Mapping[str, object]:
    """The JSON object in a file; nothing when it is not there or is something else."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


class _Timed:
    """Says a step when it is done, with the seconds it took."""

    def __init__(self, say: Say, clock: Clock) -> None:
        self._say, self._clock = say, clock

    @contextlib.contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        begun = self._clock.monotonic()
        yield
        self._say(f"{step} ({self._clock.monotonic() - begun:.1f} s)")
