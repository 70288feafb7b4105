"""Own servers behind TLS: certificates are checked, and no command goes out unencrypted."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from base import ports
from base.clock import SystemClock
from base.ids import SystemRandom
from console.embedded.postgres import PostgresSettings
from console.embedded.postgres_files import choose_owner
from console.embedded.valkey import ValkeySettings
from runtime.client import Address, Client
from schemas.errors import Unavailable
from storage.migrate import linked
from tests.certificates import certificate
from tests.conftest import short_folder
from tests.servers import TEST_PASSWORD, DebianPostgres, DebianRedis


class TlsRedis(DebianRedis):
    """Also listens with TLS. files: certificate and key."""

    files: tuple[Path, Path]
    tls_port: int

    def _config(self, port: int) -> str:
        tls = {"tls-port": self.tls_port, "tls-cert-file": self.files[0], "tls-key-file": self.files[1]}
        tls |= {"tls-ca-cert-file": self.files[0]}
        lines = [f"{name} {value}" for name, value in tls.items()]
        return super()._config(port) + "\n".join([*lines, "tls-auth-clients no"]) + "\n"


class TlsPostgres(DebianPostgres):
    """Takes TLS. files: certificate and key."""

    files: tuple[Path, Path]

    def _parameters(self, port: int) -> dict[str, str]:
        named = {"ssl": "on", "ssl_cert_file": str(self.files[0]), "ssl_key_file": str(self.files[1])}
        return super()._parameters(port) | named


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as found:
        found.chmod(0o711)
        yield found


@pytest.fixture
def files(folder: Path) -> tuple[Path, Path]:
    """Certificate and key for 127.0.0.1, such that a server of the test may read them."""
    cert, key = certificate(folder, [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")])
    owner = choose_owner(folder / "none")
    os.chown(key, owner.uid, owner.gid)
    key.chmod(0o600)
    return cert, key


async def test_rediss_checks_the_certificate(
    folder: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = TlsRedis(folder / "redis", ValkeySettings(TEST_PASSWORD, fsync="no", tied=True))
    server.files, server.tls_port = files, ports.free_port()
    server.start()
    try:
        address = Address.parse(f"rediss://:{TEST_PASSWORD}@127.0.0.1:{server.tls_port}/0")
        client = Client(address, SystemClock(), SystemRandom())
        with pytest.raises(Unavailable, match="certificate verify failed"):
            await client.connect()
        monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
        assert ssl.get_default_verify_paths().cafile == str(files[0])
        await client.connect()
        assert await client.execute("PING") == b"PONG"
        await client.close()
    finally:
        server.stop()


async def test_sslmode_checks_the_certificate(folder: Path, files: tuple[Path, Path]) -> None:
    server = TlsPostgres(folder / "pg", PostgresSettings(TEST_PASSWORD, durable=False, tied=True))
    server.files = files
    server.start()
    try:
        for mode in (f"verify-full&sslrootcert={files[0]}", "require"):
            async with linked(f"{server.dsn}?sslmode={mode}") as connection:
                assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        (folder / "stranger").mkdir()
        stranger = certificate(folder / "stranger", [])
        with pytest.raises(Unavailable):
            async with linked(f"{server.dsn}?sslmode=verify-full&sslrootcert={stranger[0]}"):
                pass
    finally:
        server.stop()
