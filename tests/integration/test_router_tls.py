"""TLS to engines is verified, with nothing sent before it is."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from providers.errors import ConnectFailed
from providers.httptools_transport import HttptoolsTransport
from providers.ports import Timeouts
from tests.certificates import certificate
from tests.router_support import CLOCK


@asynccontextmanager
async def https_server(cert: Path, key: Path) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers `{}` to everything; the heads it was sent."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            await writer.drain()
        writer.transport.abort()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x", heads
    finally:
        server.close()


async def answer_of(url: str, trust: ssl.SSLContext | None) -> bytes:
    transport = HttptoolsTransport(CLOCK, tls=trust)
    try:
        response = await transport.open(url, {"authorization": "Bearer x"}, b"{}", Timeouts(), private=True)
        body = await response.read()
        response.close()
        return body
    finally:
        await transport.close()


@pytest.mark.parametrize(
    ("names", "trusted", "works"),
    [
        ([x509.IPAddress(ip_address("127.0.0.1"))], True, True),
        ([x509.IPAddress(ip_address("127.0.0.1"))], False, False),
        ([x509.DNSName("engine.example")], True, False),
    ],
    ids=["good", "unknown issuer", "another name"],
)
async def test_a_credential_is_sent_only_to_the_one_that_its_certificate_names(
    tmp_path: Path, names: list[x509.GeneralName], trusted: bool, works: bool
) -> None:
    cert, key = certificate(tmp_path, names)
    trust = ssl.create_default_context(cafile=str(cert)) if trusted else None
    async with https_server(cert, key) as (url, heads):
        if works:
            assert await answer_of(url, trust) == b"{}"
            return
        with pytest.raises(ConnectFailed, match="no connection"):
            await answer_of(url, trust)
    assert heads == []
