"""The durable path with nothing in it: what a gateway of this shape costs in Python here, as a column of a run.

The passages of the default layout and no more: a door that stores a request in Valkey, a worker whose group reads it,
claims it, calls the engine, stores each frame on a stream of the run's own under its owner's guard and pushes it to the
door. No keys are looked up, nothing is checked, scanned, limited, sealed, signed, counted or recorded, an engine is not
chosen, and nobody takes over from the dead. So a figure of Headrace divided by the same figure here says what it does
for a request, whatever the machine; and a budget below the figure here leaves nothing for doing it.

    lua.py      the four steps that the server takes for a run
    door.py     HTTP to a stored request, pushes to HTTP
    worker.py   from the group's entries to the engine and back into the run's stream
    house.py    starts all three and says where they are
    __main__.py one of the two processes
"""
