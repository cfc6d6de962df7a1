"""Where webhooks may go: to https addresses of the public Internet, never into a private network (promise 26).

An address that is not named here as public is refused: the table of refusals only gives the reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

ALLOW_PRIVATE_SETTING: Final = "BILLING_WEBHOOK_ALLOW_PRIVATE"

_IPV4: Final = tuple(
    (IPv4Network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared (carrier-grade NAT)"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_IPV6: Final = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("::/96", "IPv4-compatible"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("100::/64", "discard-only"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "reserved for protocols"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "for documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_PUBLIC_IPV6: Final = IPv6Network("2000::/3")
"""What is given out for the Internet; all the rest is for something else, known or not."""


def refusal_of_address(text: str) -> str | None:
    """Why no webhook goes to an IP address; None when it may."""
    try:
        address = ip_address(text)
    except ValueError:
        return f"{text} is no IP address"
    kind = _kind(address)
    return None if kind is None else f"{text} is no public address ({kind})"


def refusal_of_addresses(texts: Sequence[str]) -> str | None:
    """Why no webhook goes to a name that stands for these addresses: one bad address is enough."""
    if not texts:
        return "the name stands for no address"
    return next((refusal for text in texts if (refusal := refusal_of_address(text)) is not None), None)


def refusal_of_url(url: str) -> str | None:
    """What can be told from a URL alone, before its name is resolved."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https":
        refusal: str | None = "must begin with https://"
    elif ":" in host or host.replace(".", "").isdigit():
        # Some would take 2130706433 or 127.1 for 127.0.0.1: what looks like an address must be one.
        refusal = refusal_of_address(host) if _is_address(host) else f"{host} is no IP address, and no host name either"
    else:
        refusal = None
    if refusal is None:
        return None
    return f"{refusal}; only for development a server goes there, with {ALLOW_PRIVATE_SETTING}=true"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _kind(address: IPv4Address | IPv6Address) -> str | None:
    """What kind of address that is not public it is; None when it is public."""
    if isinstance(address, IPv4Address):
        return next((reason for network, reason in _IPV4 if address in network), None)
    if address.scope_id is not None:
        return "scoped"
    known = next((reason for network, reason in _IPV6 if address in network), None)
    return known or (None if address in _PUBLIC_IPV6 else "reserved")
