"""What a delivery may connect to, as a table; and the URLs that are taken at all."""

from __future__ import annotations

import pytest

from connector.errors import InvalidArgument
from connector.webhooks.blocked_addresses import MAX_URL_LENGTH, check_public, check_url, is_public

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "2606:4700::1111",
    "2001:4860:4860::8888",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]
NOT_PUBLIC = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "168.63.129.16",
    "192.0.0.192",
    "192.88.99.1",
    "198.18.0.1",
    "203.0.113.7",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001::1",
    "2001:db8::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook",
        "http://example.com",
        "https://example.com:8443/a?key=value#x",
        "https://[2606:4700::1111]/hook",
        "https://bücher.example/hook",
    ],
)
def test_good_urls(url: str) -> None:
    assert check_url(url) == url
    check_public(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/hook",
        "/hook",
        "//example.com/hook",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://",
        "https:///hook",
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://user:password@example.com/",
        "https://user@example.com/",
        "https://exa mple.com/",
        "http://127.1/",
        "http://2130706433/",
        "http://0/",
        "https://example.com/\r\nX: y",
        "https://[::1/",
        "https://example.com/" + "a" * MAX_URL_LENGTH,
    ],
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^url: "):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/hook",
        "http://[::1]/hook",
        "http://[::ffff:10.0.0.1]/hook",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost/hook",
        "http://LOCALHOST./hook",
    ],
)
def test_urls_that_name_a_private_address_are_refused_when_they_are_registered(url: str) -> None:
    assert check_url(url) == url
    with pytest.raises(InvalidArgument, match="CONNECTOR_WEBHOOK_ALLOW_PRIVATE"):
        check_public(url)
