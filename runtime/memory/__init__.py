"""The twins of delivery: the same protocols as on a server, over one shared state in this process.

Semantics are those of the Lua files and of Redis, kept equal by one contract suite. Several engines and doors may share
one MemoryServer; its time is the clock's, so a bent clock bends deadlines and idle times too.

    server.py    streams with groups, hashes, expiry, push       scripts.py   MemoryScripts
    readers.py   MemoryGroups, MemoryRuns, MemoryPush             commands.py  MemoryCommands
"""

from runtime.memory.commands import MemoryCommands
from runtime.memory.readers import MemoryGroups, MemoryPuller, MemoryPush, MemoryRuns, MemoryShared
from runtime.memory.scripts import MemoryScripts
from runtime.memory.server import MemoryServer

__all__ = [
    "MemoryCommands",
    "MemoryGroups",
    "MemoryPuller",
    "MemoryPush",
    "MemoryRuns",
    "MemoryScripts",
    "MemoryServer",
    "MemoryShared",
]
