"""Which URLs and addresses an engine may have. Pure.

Only the operator names engines, yet a name may resolve to anything at any time; so the address itself is judged when
the socket is made, and that very address is connected to. A credential belongs to one origin: no userinfo, no
redirect, no plain HTTP to a public address.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address

#: Where clouds serve instance credentials; never an engine, not even a private one.
METADATA = frozenset(
    ip_address(text) for text in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")
)
_NAT64 = IPv6Network("64:ff9b::/96")


def refuse_address(text: str, private: bool) -> str:
    """Why this address may not be connected to, or "". IPv4 inside IPv6 is judged as the IPv4 it reaches."""
    try:
        address = _reached(ip_address(text.partition("%")[0]))
    except ValueError:
        return f"{text} is not an address"
    if address in METADATA:
        return f"{text} is a metadata service"
    if address.is_multicast or address.is_unspecified:
        return f"{text} is not the address of one machine"
    if not private and not address.is_global:
        return f"{text} is not a public address; mark the endpoint private if it is meant"
    return ""


@lru_cache(maxsize=1024)
def refuse_url(url: str, credential: bool, private: bool) -> str:
    """Why this base address may not be called, or "". The text never repeats what stands before an @."""
    if not url.isascii() or any(ord(sign) <= 32 or sign in '\\<>"^`{|}' or ord(sign) == 127 for sign in url):
        return "the URL has characters that must be escaped"
    try:
        parts = urlsplit(url)
        port_ok = parts.port is None or 0 < parts.port < 65536
    except ValueError:
        return "the URL cannot be read"
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok:
        return "the URL must be http(s)://host[:port]/path"
    if "@" in parts.netloc or "?" in url or "#" in url:
        return "the URL must have no user, query or fragment; give the key as the endpoint's credential"
    if credential and parts.scheme == "http" and not private:
        return "a credential is sent over https only; mark the endpoint private if plain http is meant"
    return ""


def _reached(address: Address) -> Address:
    """The IPv4 address that an IPv6 one embeds (mapped, 6to4, Teredo, NAT64), else itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
