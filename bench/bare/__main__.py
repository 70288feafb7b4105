"""One of the two processes: `python -m bench.bare door URL PORT`, `python -m bench.bare worker URL ENGINE`."""

import sys

from bench.bare.door import serve
from bench.bare.worker import work
from bench.loop import run_fast

if __name__ == "__main__":
    role, url, last = sys.argv[1:]
    run_fast(serve(url, int(last)) if role == "door" else work(url, last))
