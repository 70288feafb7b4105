"""What a reply stream carries. One stream per run, {p}:reply:<run>, entry id `<epoch>-<sequence>`.

The sequence counts the SSE data events sent to the client, from 1; a frame holds one or more whole events and its id
is that of its last one. A unary answer is one event. Entry fields: `k` kind, `n` events in it, `d` sealed payload,
`h` headers as JSON: public ones in the first and the last frame, and who wrote it (OWNER) in every frame of a router.
The same fields go out on the push channel of each watching
ingress, behind a line that names run, epoch, sequence.

    kind   payload                                                   after it
    data   raw SSE bytes: whole events, each ending in a blank line  more frames
    end    the last SSE bytes ([DONE] included), or the unary body   nothing
    error  Failure as JSON                                           nothing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from schemas.errors import UNREADABLE, DecodeError, Failure

DATA, END, ERROR = "data", "end", "error"
#: Header of a frame: the nonce of the claim under which it was written. A server that lost writes may give an epoch
#: away twice; frames of one epoch with two nonces belong to two answers. Never shown outside.
OWNER = "owner"


class StoredFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A frame as it lies in a reply stream or in the archive: payload sealed, headers as JSON."""

    epoch: int
    sequence: int
    kind: str
    events: int
    payload: bytes
    headers: bytes


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a reply stream, opened. `first` is the sequence of its first event."""

    epoch: int
    sequence: int
    kind: str
    events: int
    payload: bytes
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)

    @property
    def first(self) -> int:
        return self.sequence - self.events + 1

    @property
    def terminal(self) -> bool:
        return self.kind != DATA


_encoder = msgspec.json.Encoder()
_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(tuple[StoredFrame, ...])
_failures = msgspec.json.Decoder(Failure)


def encode_failure(failure: Failure) -> bytes:
    """The payload of an error frame."""
    return _encoder.encode(failure)


def decode_failure(payload: bytes) -> Failure:
    """The failure an error frame carries. DecodeError."""
    try:
        return _failures.decode(payload)
    except UNREADABLE as error:
        raise DecodeError(f"not a failure: {error}", payload) from None


def pack(frames: Sequence[StoredFrame]) -> bytes:
    """A run's frames as the archive keeps them: sealed as they were."""
    return _packer.encode(frames)


def unpack(packed: bytes) -> tuple[StoredFrame, ...]:
    """The frames of `pack`. DecodeError."""
    try:
        return _unpacker.decode(packed)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"not the frames of a run: {error}") from None


def place(epoch: int, sequence: int, kind: str, events: int, headers: bytes) -> str:
    """The associated data that a frame is sealed with: its place in the stream and everything that stands beside the
    payload in clear. Moved, relabelled or with other headers it does not open."""
    return f"frame/{epoch}-{sequence}/{kind}/{events}/{headers.decode()}"
