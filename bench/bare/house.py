"""Starts the door, the worker and their server, and says where they are."""

import sys
from pathlib import Path

from bench.peers import Peer, Program, wait_for_answer
from console.embedded.valkey import EmbeddedValkey, ValkeySettings


class Bare:
    """One durable path with nothing in it, on a server of its own in `folder`."""

    def __init__(self, folder: Path, port: int, engine_url: str, cores: frozenset[int] | None) -> None:
        folder.mkdir(parents=True)
        self._port = port
        self._server = EmbeddedValkey(folder / "valkey", ValkeySettings(password="bare", tied=True))
        self._server.start()
        url = self._server.fastest_url
        self._door = self._part("door", folder, cores, url, str(port))
        self._worker = self._part("worker", folder, cores, url, engine_url)

    @staticmethod
    def _part(role: str, folder: Path, cores: frozenset[int] | None, *words: str) -> Program:
        return Program([sys.executable, "-m", "bench.bare", role, *words], folder / f"{role}.log", cores)

    def ready(self, limit: float) -> Peer:
        """The peer, once it has answered. StartError."""
        groups = {"ingress": (self._door.pid,), "workers": (self._worker.pid,), "valkey": (self._server.pid,)}
        peer = Peer("bare", f"http://127.0.0.1:{self._port}/v1", groups=groups)
        wait_for_answer(peer, limit)
        return peer

    def stop(self) -> None:
        """All three."""
        for part in (self._door, self._worker):
            part.stop(5)
        self._server.stop()
