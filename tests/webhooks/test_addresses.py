"""Webhooks never go into a private network, however its addresses are written (promise 26)."""

from __future__ import annotations

import pytest

from billing_server.domain.webhook_address import refusal_of_address, refusal_of_addresses, refusal_of_url

PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"),
    *("128.0.0.1", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255"),
    *("192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255"),
    *("2606:4700:4700::1111", "2a00:1450:4001:80b::200e", "2001:4860:4860::8888", "2400:cb00::1"),
]

REFUSED = [
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "unspecified"),
    ("10.0.0.0", "private"),
    ("10.255.255.255", "private"),
    ("100.64.0.0", "shared"),
    ("100.127.255.255", "shared"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.255", "loopback"),
    ("169.254.169.254", "link-local"),
    ("172.16.0.0", "private"),
    ("172.31.255.255", "private"),
    ("192.0.0.8", "protocols"),
    ("192.0.2.1", "documentation"),
    ("192.88.99.1", "6to4"),
    ("192.168.0.0", "private"),
    ("192.168.255.255", "private"),
    ("198.18.0.0", "benchmarks"),
    ("198.19.255.255", "benchmarks"),
    ("198.51.100.7", "documentation"),
    ("203.0.113.7", "documentation"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.255", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::7f00:1", "IPv4-compatible"),
    ("::ffff:127.0.0.1", "IPv4-mapped"),
    ("::ffff:8.8.8.8", "IPv4-mapped"),
    ("64:ff9b::a00:1", "NAT64"),
    ("64:ff9b::8.8.8.8", "NAT64"),
    ("64:ff9b:1::1", "NAT64"),
    ("100::1", "discard"),
    ("2001::1", "Teredo"),
    ("2001:10::1", "protocols"),
    ("2001:db8::1", "documentation"),
    ("2002:a00:1::1", "6to4"),
    ("3fff::1", "documentation"),
    ("4000::1", "reserved"),
    ("5f00::1", "reserved"),
    ("fc00::1", "private"),
    ("fd12:3456::1", "private"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "scoped"),
    ("2606:4700::1%eth0", "scoped"),
    ("fec0::1", "site-local"),
    ("ff02::1", "multicast"),
    ("2130706433", "no IP address"),
    ("0x7f.1", "no IP address"),
    ("127.1", "no IP address"),
    ("010.0.0.1", "no IP address"),
    ("", "no IP address"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_reached(address: str) -> None:
    assert refusal_of_address(address) is None


@pytest.mark.parametrize(("address", "reason"), REFUSED)
def test_other_addresses_are_refused_with_their_reason(address: str, reason: str) -> None:
    refusal = refusal_of_address(address)
    assert refusal is not None
    assert reason in refusal


def test_one_bad_address_spoils_a_name() -> None:
    assert refusal_of_addresses(["1.1.1.1", "2606:4700::1"]) is None
    assert "10.0.0.1" in str(refusal_of_addresses(["1.1.1.1", "10.0.0.1"]))
    assert "no address" in str(refusal_of_addresses([]))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://shop.example/", "https"),
        ("https://127.0.0.1/", "loopback"),
        ("https://[::1]:8443/", "loopback"),
        ("https://169.254.169.254/latest/meta-data", "link-local"),
        ("https://[::ffff:a00:1]/", "IPv4-mapped"),
        ("https://2130706433/", "no host name either"),
        ("https://127.1/", "no host name either"),
        ("https://127.0.0.1./", "no host name either"),
        ("https://0/", "no host name either"),
    ],
)
def test_what_an_address_alone_gives_away(url: str, told: str) -> None:
    refusal = refusal_of_url(url)
    assert refusal is not None
    assert told in refusal
    assert "BILLING_WEBHOOK_ALLOW_PRIVATE" in refusal, "the way out"


@pytest.mark.parametrize("url", ["https://shop.example/x?y=1", "https://8.8.8.8:8443/", "https://localhost/"])
def test_names_are_judged_when_they_are_resolved(url: str) -> None:
    assert refusal_of_url(url) is None
