"""The border: what asyncpg raises, in our words.

    Unavailable   PostgreSQL is away, full, failing over, or not set up yet: wait and ask again; nothing is lost
    StoreRefused  it understood and said no: our bug or a row that can't be; asking again won't help
    UnfitValue    a StoreRefused because of a value: NUL in a text, a number beyond 64 bits

Messages carry the server's message and SQLSTATE, never its DETAIL, which repeats values of rows.
"""

from __future__ import annotations

import asyncpg

from schemas.errors import HeadraceError, Unavailable

#: SQLSTATE, or its class of two characters, that means "not now".
_NOT_NOW = (
    "08",  # connection
    "25006",  # read only: a standby, during a failover
    "28",  # wrong password or role
    "3D000",  # the database does not exist
    "40",  # rolled back: deadlock, serialization
    "53",  # out of disk, memory, connections
    "55P03",  # lock not available
    "57",  # shutdown, cancelled, starting up
    "58",  # the server's system fails
)
_DATA = "22"  # data exceptions
_NOT_SET_UP = ("42P01", "42703", "22023")  # no such table, column or role: not migrated

#: What asyncpg raises: the network's errors, the server's, its own.
FOREIGN = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class StoreRefused(HeadraceError):
    """PostgreSQL refused a statement that will not become right by itself."""


class UnfitValue(StoreRefused):
    """A value that no column can hold, whoever gave it."""


def translate(error: BaseException, *, gone: bool) -> HeadraceError:
    """Our error for one of FOREIGN. gone: the connection is closed, so a complaint of the driver is about that."""
    if isinstance(error, (OSError, TimeoutError)):
        return Unavailable(f"PostgreSQL does not answer ({type(error).__name__}); check postgres.dsn and the server")
    if not isinstance(error, asyncpg.PostgresError):
        if gone:
            return Unavailable(f"the connection to PostgreSQL is gone: {error}")
        return UnfitValue(f"a statement was not sent, its values don't fit: {error}")
    state = error.sqlstate or ""
    said = f"{_message(error)} (SQLSTATE {state})"
    if state.startswith(_NOT_NOW):
        return Unavailable(f"PostgreSQL cannot serve now: {said}")
    if state in _NOT_SET_UP:
        return Unavailable(f"the record is not set up; run the migrations: {said}")
    kind = UnfitValue if state.startswith(_DATA) else StoreRefused
    return kind(f"PostgreSQL refused a statement: {said}")


def _message(error: asyncpg.PostgresError) -> str:
    return str(error.args[0]) if error.args else type(error).__name__
