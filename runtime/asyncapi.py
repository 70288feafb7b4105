"""AsyncAPI 3.0 of the streams: what streams.yaml declares, with the schemas of the messages' dataclasses. Pure.

    channel      one a stream; {p}, {run}, {pool} and {lane} of its key are parameters
    operation    `send` one for each publisher of a stream, `receive` one for each group
    message      headers: the fields of an entry beside the message; payload: the message as JSON

The same topology gives the same bytes. Served at /asyncapi.json and written to docs/reference/asyncapi.json.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson

from base.version import version
from runtime.topology import Stream, Topology
from schemas.envelope import Envelope, message_classes
from schemas.events import Terminal

Part = dict[str, Any]

_BINDING = {"bindingVersion": "custom"}  # AsyncAPI 3.0 reserves the name `redis` and leaves the content open
_TEXT: Part = {"type": "string"}
_SEALED: Part = {"type": "string", "contentEncoding": "binary", "description": "Sealed: AES-256-GCM."}

_PARAMETERS: Mapping[str, Part] = {
    "p": {"description": "The partition's hash tag with its braces: all keys of a run lie in one slot."},
    "run": {"description": "A run id: a UUIDv7 with the partition in it."},
    "pool": {"description": "The endpoints that can serve a model."},
    "lane": {"description": "Which queue of the pool."},
}

_FRAME: Part = {
    "type": "object",
    "description": "One or more whole server-sent events of a run's answer. Entry id: <epoch>-<sequence of the last>.",
    "required": ["k", "n", "d"],
    "properties": {
        "k": {"type": "string", "enum": ["data", "end", "error"], "description": "After end and error: nothing."},
        "n": {"type": "string", "description": "How many events are in it."},
        "d": _SEALED,
        "h": {"type": "string", "description": "Public headers as JSON, in the first and the last frame."},
    },
}

_LETTER: Part = {
    "type": "object",
    "description": "An entry that could not be handled, and why.",
    "required": ["stream", "group", "entry", "starts", "reason", "run", "d"],
    "properties": {
        **dict.fromkeys(("stream", "group", "entry"), _TEXT),
        "starts": {"type": "string", "description": "How often it was started."},
        "reason": _TEXT,
        "run": {"type": "string", "description": "Empty when it is not known."},
        "d": _SEALED,
    },
}

#: Messages that are no dataclass: their fields are the entry's own.
_BARE: Mapping[str, Part] = {"Frame": _FRAME, "DeadLetter": _LETTER}

_SIGNATURE: Part = {"s": {"type": "string", "description": "The publisher's signature over the stream's kind and `e`."}}
_EVIDENCE: Part = {
    "a": {"type": "string", "description": "The acceptance as it was signed."},
    "as": {"type": "string", "description": "Its signature."},
    "t": {"type": "string", "description": "The run's times, as FactTimes."},
}
_VERDICTS: Part = {"^v:": {"type": "string", "description": "A family's verdict as stored, signed."}}


def document(topology: Topology) -> bytes:
    """The whole document as indented JSON with sorted keys."""
    kinds = sorted({kind for stream in topology.streams.values() for kind in _kinds(stream)})
    whole = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Headrace streams",
            "version": version(),
            "description": "The rooms speak over Redis Streams. An entry's field `e` is the message in its envelope, "
            "as JSON. Delivery is at least once; every consumer is idempotent.",
        },
        "defaultContentType": "application/json",
        "servers": {"redis": {"host": "localhost:6379", "protocol": "redis", "description": "`redis.url`."}},
        "channels": {name: _channel(name, stream) for name, stream in topology.streams.items()},
        "operations": {k: v for name, stream in topology.streams.items() for k, v in _operations(name, stream).items()},
        "components": {"messages": {kind: _message(kind) for kind in kinds}, "schemas": _schemas(kinds)},
    }
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def _kinds(stream: Stream) -> list[str]:
    """What may stand on a stream, by name."""
    return sorted({kind for said in stream.publishers.values() for kind in said})


def _channel(name: str, stream: Stream) -> Part:
    names = re.findall(r"{(\w+)}", stream.key)
    found: Part = {
        "address": stream.key,
        "title": name,
        "description": stream.description,
        "messages": {kind: {"$ref": f"#/components/messages/{kind}"} for kind in _kinds(stream)},
        "bindings": {"redis": {**_BINDING, "type": "stream", "channel": stream.key}},
        "x-retention": stream.retention,
    }
    if names:
        found["parameters"] = {name: dict(_PARAMETERS[name]) for name in names}
    if stream.lanes:
        found["parameters"]["lane"]["enum"] = list(stream.lanes)
    return found


def _operations(name: str, stream: Stream) -> dict[str, Part]:
    found = {
        f"{publisher}.send.{name}": _operation("send", name, kinds, f"{publisher} publishes on {name}.", {})
        for publisher, kinds in stream.publishers.items()
    }
    for group, spec in stream.groups.items():
        reading = {"groupName": group, "consumerName": "<process>"}
        receive = _operation("receive", name, _kinds(stream), spec.description, reading)
        receive["x-room"] = spec.room
        receive["x-delivery"] = {"idle_limit_ms": spec.idle_limit, "max_starts": spec.max_starts, "batch": spec.batch}
        found[f"{group}.receive.{name}"] = receive
    return found


def _operation(action: str, stream: str, kinds: Sequence[str], said: str, reading: Part) -> Part:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{stream}"},
        "summary": said,
        "messages": [{"$ref": f"#/channels/{stream}/messages/{kind}"} for kind in sorted(kinds)],
        "bindings": {"redis": {**_BINDING, "method": "xreadgroup" if action == "receive" else "xadd", **reading}},
    }


def _message(kind: str) -> Part:
    if kind in _BARE:
        return {"name": kind, "summary": _BARE[kind]["description"], "payload": _BARE[kind]}
    cls = message_classes()[kind]
    properties = {"type": {"const": kind}, "data": {"$ref": f"#/components/schemas/{kind}"}}
    envelope = {"$ref": "#/components/schemas/Envelope"}
    found: Part = {
        "name": kind,
        "summary": _said(cls.__doc__).partition("\n")[0],
        "payload": {"allOf": [envelope, {"type": "object", "properties": properties}]},
    }
    if headers := _headers(cls):
        found["headers"] = headers
    return found


def _headers(cls: type[Any]) -> Part:
    """The fields of an entry beside `e`. What a script says is not signed."""
    if cls.__name__ == "RequestCleared":
        return {}
    headers: Part = {"type": "object", "required": ["s"], "properties": dict(_SIGNATURE)}
    if cls in Terminal.__args__:
        headers["properties"] |= _EVIDENCE
        headers["patternProperties"] = dict(_VERDICTS)
    return headers


def _schemas(kinds: Sequence[str]) -> Part:
    """Every message, the values inside them, and the envelope."""
    classes = [Envelope, *(message_classes()[kind] for kind in kinds if kind not in _BARE)]
    _, found = msgspec.json.schema_components(classes, ref_template="#/components/schemas/{name}")
    for schema in found.values():
        if "description" in schema:
            schema["description"] = _said(schema["description"])
    return dict(found)


def _said(text: str | None) -> str:
    return inspect.cleandoc(text or "")
