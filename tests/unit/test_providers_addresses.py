"""No trick with a URL or an address reaches what is not public."""

import pytest

from base.clock import SystemClock
from providers.addresses import refuse_address, refuse_url
from providers.errors import ConnectFailed
from providers.httptools_transport import HttptoolsTransport
from providers.ports import Timeouts

PRIVATE = [
    "127.0.0.1",
    "127.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.1.1",
    "0.0.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "240.0.0.1",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd12::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "2002:7f00:1::",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "2001:db8::1",
]
NEVER = [
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "ff02::1",
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "fd00:ec2::254",
    "192.0.0.192",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "nonsense",
    "1.2.3",
    "",
]
PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_needs_an_endpoint_marked_private(address: str) -> None:
    assert refuse_address(address, private=False)
    assert not refuse_address(address, private=True)


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_an_engine(address: str) -> None:
    assert refuse_address(address, private=False)
    assert refuse_address(address, private=True)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_fine(address: str) -> None:
    assert not refuse_address(address, private=False)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/v1", "file:///etc/passwd", "gopher://host", "//host/v1", "host/v1", "http://", "http:///v1",
        "https://user@host/v1", "https://user:word@host/v1", "https://good@evil/v1", "https://host/v1?x=1",
        "https://host/v1#x", "https://host#@evil/v1", "https://host\\@evil/v1", "https://host /v1", "https://ho\nst/v1",
        "https://host\t/v1", "https://host/v1\r\nx: y", "https://höst/v1", "https://host:99999/v1", "https://host:0/v1",
        "https://host:x/v1", "https://[::1/v1", "https://<host>/v1", "https://host/`v1", "", " ", "javascript:alert(1)",
    ],
)  # fmt: skip
def test_a_url_that_can_mean_two_things_is_refused(url: str) -> None:
    assert refuse_url(url, credential=False, private=True)


def test_a_credential_is_sent_over_https_or_to_a_private_endpoint_only() -> None:
    assert refuse_url("http://host/v1", credential=True, private=False)
    assert not refuse_url("http://host/v1", credential=True, private=True)
    assert not refuse_url("http://host/v1", credential=False, private=False)
    assert not refuse_url("https://host:8443/v1", credential=True, private=False)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0x7f000001", "2130706433", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"],
)
async def test_the_socket_itself_refuses_every_spelling_of_this_machine(host: str) -> None:
    transport = HttptoolsTransport(SystemClock())
    try:
        with pytest.raises(ConnectFailed, match=r"not a public address|cannot be called|not the address"):
            await transport.open(f"http://{host}:9/v1/x", {}, b"{}", Timeouts(connect_s=2, first_byte_s=2))
    finally:
        await transport.close()
