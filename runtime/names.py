"""Every Redis key of delivery, with type, meaning and lifetime. Every other key is in the list of state/__init__.py.

    {p}:requests               stream   accepted runs; trimmed up to what all groups acknowledged
    {p}:body:<run>             string   the sealed body; deleted at the run's end
    {p}:kept:<run>             string   the sealed body of an ended run, until the archive has it with the answer
    {p}:keeping                zset     `<run> <bytes>` of each of these -> when it expires (server clock)
    {p}:keeping:bytes          string   sum of their bytes; counts against acceptance of more of them
    {p}:run:<run>              hash     the run's state (fields: runtime/lua/lib.lua); no expiry while it lives
    {p}:live                   zset     run -> deadline in ms of the server's clock; every run that has not ended
    {p}:left                   zset     run that nobody watches -> when its policy ends it; goes with the run
    {p}:bytes                  string   sum of the bodies of live runs
    {p}:cleared:<pool>:<lane>  stream   runs that may start; an entry goes with the end of its run
    {p}:lanes                  set      the cleared streams that exist
    {p}:reply:<run>            stream   frames, ids <epoch>-<sequence>; expiry set by the end
    {p}:facts                  stream   terminal facts; trimmed up to what all groups acknowledged
    {p}:once                   string   since when the hashes below are complete, ms of the server's clock
    {p}:once:<name>            hash     which run an Idempotency-Key has; until its answer is not kept any more
    {p}:dlq                    stream   dead letters, kept until the operator removes them
    {p}:starts:<group>         hash     entry -> starts, for redelivered entries only; the field goes with the ack
    {p}:doors                  zset     ingress process -> last heartbeat (server clock); a lost one drops out
    {p}:server                 hash     run id of the server in charge (id), since when that is known (since, its clock)
    {p}:push:<name>            channel  frames for an ingress, cancels for an owner (sharded publish)
    {p}:routers                zset     router -> until when its announcement holds (server clock)
    {p}:gate:<pool>            hash     announced slots and virtual times of a pool (see runtime/lua/gate.lua)
    {p}:gate:<pool>|slots      hash     router -> its slots and until when; gone seconds after the last announcement
    {p}:gate:<pool>|<lane>:... zsets    who waits: tenants, tenant:<id>, waiting; passed: who was served more
    commands, control          streams  outside any partition
    {commands}:server          hash     as {p}:server, for the stream outside
    {durable}:probe            string   whether WAITAOF waits is tried on it (runtime/disk.py); a minute
    {commands}:starts:<group>  hash     as {p}:starts, for the stream outside
    {commands}:dlq             stream   as {p}:dlq, for the stream outside

`{p}` is the hash tag of a partition. Tags are chosen so that partitions spread evenly over the slots of a cluster:
partition n takes a tag whose slot lies in the n-th of 64 slot ranges in bit-reversed order (van der Corput), so the
first 2^k partitions always fall into 2^k equal ranges. A tag depends on n alone, never on how many there are.
"""

from __future__ import annotations

import binascii
import re
from functools import lru_cache

from base.ids import partition_of

SLOTS = 16384  # Redis Cluster
#: What a push begins with that carries frames of many runs (see runtime/lua/lib.lua).
MANY = b"- 0 0 0 many 0\n"
_RANGES = 64
_NAME = re.compile(r"[A-Za-z0-9._/@:+-]{1,128}")


def slot_of(tag: str) -> int:
    """The cluster slot of a hash tag: CRC16 (XMODEM) mod 16384, as the Redis Cluster specification says."""
    return binascii.crc_hqx(tag.encode(), 0) % SLOTS


@lru_cache(maxsize=4096)
def tag(partition: int) -> str:
    """The hash tag of a partition, without braces: `<n>` or `<n>.<k>` with the smallest k that fits its range."""
    wanted = int(f"{partition % _RANGES:06b}"[::-1], 2)
    candidate, k = str(partition), 0
    while slot_of(candidate) * _RANGES // SLOTS != wanted:
        candidate = f"{partition}.{k}"
        k += 1
    return candidate


@lru_cache(maxsize=4096)
def prefix(partition: int) -> str:
    """`{tag}` with its braces: what every key of the partition begins with."""
    return "{" + tag(partition) + "}"


@lru_cache(maxsize=4096)
def prefix_of(run: str) -> str:
    """The key prefix of a run, from its id alone. ValueError when it is not a run id."""
    return prefix(partition_of(run))


@lru_cache(maxsize=4096)
def lane_key(p: str, pool: str, lane: str) -> str:
    """The cleared stream of a pool and lane."""
    if not _NAME.fullmatch(pool):
        raise ValueError(f"pool name {pool!r} must be 1-128 characters of A-Z a-z 0-9 . _ / @ : + -")
    return f"{p}:cleared:{pool}:{lane}"


@lru_cache(maxsize=4096)
def place_of(lane: str) -> tuple[str, str]:
    """(pool, lane) of a cleared stream's key."""
    pool, _, name = lane.partition(":cleared:")[2].rpartition(":")
    return pool, name


def waiting_key(lane: str) -> str:
    """Who waits at the gate before a cleared stream: zset, run -> since when, ms."""
    pool, name = place_of(lane)
    return f"{lane.partition(':')[0]}:gate:{pool}|{name}:waiting"


def push_channel(p: str, name: str) -> str:
    """Where an ingress hears frames and a router hears cancels."""
    return f"{p}:push:{name}"


def kept_key(run: str) -> str:
    """The sealed body of an ended run whose input is kept with its answer."""
    return f"{prefix_of(run)}:kept:{run}"


def once_key(p: str, name: str) -> str:
    """Which run an Idempotency-Key has, by a name of that key."""
    return f"{p}:once:{name}"


def stream_prefix(stream: str) -> str:
    """What a stream's helper keys begin with: `{p}:` inside a partition, `{<stream>}:` for the streams outside one,
    so that a script's keys always share a slot with the stream."""
    return stream.partition(":")[0] + ":" if stream.startswith("{") else "{" + stream + "}:"


def starts_key(stream: str, group: str) -> str:
    """Where the starts of a group's redelivered entries are counted."""
    return f"{stream_prefix(stream)}starts:{group}"
