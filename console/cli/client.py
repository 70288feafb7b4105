"""The command line's side of HTTP: find the server, ask it, turn every trouble into one line that says what to do.

The server is found by HEADRACE_ADMIN_URL and HEADRACE_ADMIN_KEY, else by DIR/connection.json, which `headrace up`
writes when it is ready. Answers may be of a newer server: fields that are missing are not an error here.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

PREFIX = "/admin/v1"
DEFAULT_DATA = Path(".headrace")
_TIMEOUT_S = 30.0


class CliError(Exception):
    """One line for the user; the command ends with exit code 2."""


@dataclass(frozen=True, slots=True)
class Server:
    """One HTTP server and the key for it."""

    url: str
    key: str

    def ask(self, method: str, path: str, body: object = None, query: Mapping[str, object] | None = None) -> Any:
        """The JSON answer of `path` below /admin/v1. CliError with the server's own words."""
        asked = {name: value for name, value in (query or {}).items() if value not in (None, "", False)}
        full = f"{PREFIX}{path}" + (f"?{urlencode(asked)}" if asked else "")
        with self.open(method, full, body, _TIMEOUT_S) as answer:
            text = answer.read()
        try:
            found = json.loads(text)
        except ValueError:
            raise CliError(f"{self.url} does not speak the admin API; check the address") from None
        return found

    @contextmanager
    def open(self, method: str, path: str, body: object, timeout_s: float) -> Iterator[http.client.HTTPResponse]:
        """The answer of any path, its body unread. CliError for anything but 2xx."""
        if not (self.key.isascii() and self.key.isprintable()):  # http.client would quote it in its complaint
            raise CliError(f"the key for {self.url} holds signs that no key has, perhaps a line break; copy it again")
        parts = urlsplit(self.url)
        connection = _connection(parts.scheme, parts.hostname or "", parts.port, timeout_s)
        payload = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        try:
            connection.request(method, parts.path.rstrip("/") + path, payload, headers)
            answer = connection.getresponse()
            if not 200 <= answer.status < 300:
                raise CliError(_complaint(answer.status, answer.read()))
            yield answer
        except (OSError, http.client.HTTPException) as error:
            raise CliError(
                f"no answer from {self.url} ({_short(error)}); is it running? `headrace up` starts it"
            ) from None
        finally:
            connection.close()


def admin(data: Path) -> Server:
    """The admin API. CliError when it is not known where it is."""
    url, key = os.environ.get("HEADRACE_ADMIN_URL", ""), os.environ.get("HEADRACE_ADMIN_KEY", "")
    if url and key:
        return Server(_checked(url, "HEADRACE_ADMIN_URL"), key)
    found = connection(data)
    url = _checked(url or str(found.get("admin_url", "")), "admin_url")
    return Server(url, key or _known(found, "admin_key", "HEADRACE_ADMIN_KEY"))


def door(data: Path) -> Server:
    """The public API, with the application key."""
    url, key = os.environ.get("HEADRACE_BASE_URL", ""), os.environ.get("HEADRACE_API_KEY", "")
    if url and key:
        return Server(_checked(url, "HEADRACE_BASE_URL"), key)
    found = connection(data)
    url = _checked(url or str(found.get("base_url", "")), "base_url")
    return Server(url, key or _known(found, "api_key", "HEADRACE_API_KEY"))


def _known(found: Mapping[str, Any], name: str, variable: str) -> str:
    """A key of connection.json. On own servers `headrace init` has shown it and nobody kept it."""
    if not found.get(name):
        raise CliError(f"no key is known here: set {variable} to the one that `headrace init` showed")
    return str(found[name])


def connection(data: Path) -> dict[str, Any]:
    """What `headrace up` says of itself. CliError when it does not run there."""
    path = data / "connection.json"
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise CliError(
            f"no server found: {path} is not there; start one with `headrace up`, name its folder with --data DIR, "
            "or set HEADRACE_ADMIN_URL and HEADRACE_ADMIN_KEY"
        ) from None
    except PermissionError:
        raise CliError(f"{path} belongs to another user; run this as that user") from None
    except (OSError, ValueError, RecursionError):
        raise CliError(f"{path} cannot be read; `headrace up` writes it anew") from None
    return found if isinstance(found, dict) else {}


def segment(text: str) -> str:
    """A name as one segment of a path."""
    return quote(text, safe=":")


def _checked(url: str, name: str) -> str:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise CliError(f"{name} must be an http(s) address, for example http://127.0.0.1:8081")
    return url.rstrip("/")


def _connection(scheme: str, host: str, port: int | None, timeout_s: float) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=timeout_s)


def _complaint(status: int, body: bytes) -> str:
    """The server's message on one line."""
    try:
        message = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = body[:200].decode("utf-8", "replace") or http.client.responses.get(status, "no reason given")
    return f"{' '.join(message.split())} (status {status})"


def _short(error: BaseException) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
