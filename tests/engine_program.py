"""A pretend engine for tests: `engine_program.py PORT NAME [deaf|mute|child]` lists one model at /v1/models.

deaf: SIGTERM is ignored. mute: never answers. child: starts a second process that outlives the first.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """GET /v1/models."""

    def do_GET(self) -> None:
        body = json.dumps({"object": "list", "data": [{"id": sys.argv[2]}]}).encode()
        self.send_response(200 if self.path == "/v1/models" else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until told to stop."""
    manner = sys.argv[3] if len(sys.argv) > 3 else ""
    print("engine starts", "HEADRACE__SECRETS__KEYRING" in os.environ, flush=True)
    if manner == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if manner == "child":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    if manner == "mute":
        threading.Event().wait()
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
