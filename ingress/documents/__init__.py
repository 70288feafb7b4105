"""What the ports say of themselves: OpenAPI's words (openapi.py), those of work (work.py), the pages of error codes.

openapi.py    operation(asks(...), answer(...), fails(...)) beside a route; what all operations share; DocumentedAPI
failures.py   one example of every error code
work.py       the operations whose requests become runs
pages.py      docs/errors/<code>.md as served at /docs/errors/<code>
"""
