"""Whose requests the page answers: by the names it is asked for under, and by the websites that ask."""

import pytest

from sfdfd.errors import InputError
from sfdfd.web.origins import LOOPBACK, AllowedHosts, is_loopback, split_authority

ALONE = AllowedHosts.serving("127.0.0.1")


@pytest.mark.parametrize(("text", "parsed"), [
    ("127.0.0.1:7860", ("127.0.0.1", 7860)), ("LocalHost", ("localhost", None)), ("[::1]:80", ("::1", 80)),
    ("[0:0:0:0:0:0:0:1]", ("::1", None)), ("::1", None), ("[::1", None), ("[1:2]", None), ("", None), ("a b", None),
    ("evil@127.0.0.1", None), ("127.0.0.1/x", None), ("127.0.0.1:", None), ("127.0.0.1:7860:1", None),
    ("localhost\n", None),
])  # fmt: skip
def test_authorities_are_split_or_malformed(text, parsed):
    assert split_authority(text) == parsed


@pytest.mark.parametrize("host", [
    "evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", "", "192.168.1.5:7860",
    "127.0.0.1@evil.example", "[::ffff:7f00:1]:7860", "0.0.0.0:7860",
])  # fmt: skip
def test_a_page_on_loopback_answers_only_to_loopback_names(host):
    assert not ALONE.is_host(host)
    assert all(ALONE.is_host(name) for name in ("127.0.0.1:7860", "LOCALHOST:1", "[::1]:7860", "localhost"))


def test_an_open_page_answers_to_addresses_and_its_own_names(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Attic.lan")
    hosts = AllowedHosts.serving("0.0.0.0", ["photos.example.org"])
    for host in (
        "192.168.1.5:7860",
        "[fe80::1]:7860",
        "attic.lan:7860",
        "attic.local",
        "localhost",
        "photos.example.org",
    ):
        assert hosts.is_host(host), host
    for host in ("evil.example:7860", "attic.lan.evil.example", "192.168.1.5.evil.example"):
        assert not hosts.is_host(host), host


@pytest.mark.parametrize(("origin", "host", "own"), [
    ("http://127.0.0.1:7860", "127.0.0.1:7860", True), ("HTTP://LOCALHOST:7860", "localhost:7860", True),
    ("http://[::1]:7860", "[::1]:7860", True), ("http://localhost", "localhost:80", True),
    ("https://localhost", "localhost", True),
    ("http://localhost:3000", "localhost:7860", False), ("http://127.0.0.1:7860", "localhost:7860", False),
    ("http://evil.example", "127.0.0.1:7860", False), ("http://127.0.0.1:7860.evil.example", "127.0.0.1:7860", False),
    ("http://evil.example@127.0.0.1:7860", "127.0.0.1:7860", False), ("null", "127.0.0.1:7860", False),
    ("", "127.0.0.1:7860", False), ("file://", "127.0.0.1:7860", False), ("127.0.0.1:7860", "127.0.0.1:7860", False),
    ("chrome-extension://127.0.0.1:7860", "127.0.0.1:7860", False), ("http://127.0.0.1:7860/", "127.0.0.1:7860", False),
    ("http://127.0.0.1:7860 http://evil.example", "127.0.0.1:7860", False),
])  # fmt: skip
def test_only_the_page_itself_is_its_own_origin(origin, host, own):
    assert ALONE.is_own(origin, host) is own


def test_a_page_behind_a_proxy_answers_to_the_public_name():
    hosts = AllowedHosts.serving("127.0.0.1", ["https://photos.example.org", "lab.example.org:8443"])
    for host in ("127.0.0.1:7860", "photos.example.org"):
        assert hosts.is_own("https://photos.example.org", host)
        assert not hosts.is_own("https://photos.example.org:8443", host)
    assert hosts.is_own("https://lab.example.org:8443", "127.0.0.1:7860")
    assert not hosts.is_own("http://photos.example.org", "127.0.0.1:7860")
    assert hosts.is_host("lab.example.org:8443") and not hosts.is_host("example.org")


@pytest.mark.parametrize(("headers", "status"), [
    ({"origin": ["http://evil.example"]}, 403), ({"origin": ["null"]}, 403),
    ({"origin": ["http://127.0.0.1:1", "http://evil.example"]}, 403), ({"sec-fetch-site": ["cross-site"]}, 403),
    ({"sec-fetch-site": ["same-site"]}, 403), ({"sec-fetch-site": ["same-origin"]}, None),
    ({"sec-fetch-site": ["none"]}, None), ({}, None), ({"origin": ["http://127.0.0.1:1"]}, None),
])  # fmt: skip
def test_requests_of_other_websites_are_refused(headers, status):
    refused = ALONE.refusal({"host": ["127.0.0.1:1"], **headers}, navigates=False)
    assert (refused and refused[0]) == status


def test_links_on_other_websites_open_the_page_and_two_hosts_are_refused():
    assert ALONE.refusal({"host": ["localhost"], "sec-fetch-site": ["cross-site"]}, navigates=True) is None
    assert ALONE.refusal({"host": ["localhost", "localhost"]}, navigates=False)[0] == 421
    assert ALONE.refusal({}, navigates=False)[0] == 421
    status, words = ALONE.refusal({"host": ["<b>evil.example"]}, navigates=True)
    assert status == 421 and "<" not in words and "allowed_hosts" in words


@pytest.mark.parametrize("entry", ["", "*", "a b", "http://", "http://x/y", "user@x", "*.example.org", None])
def test_allowed_hosts_are_names(entry):
    with pytest.raises(InputError, match="allowed_hosts"):
        AllowedHosts.serving("127.0.0.1", ["photos.example.org", entry])
    assert AllowedHosts.serving("127.0.0.1", "photos.example.org/").is_host("photos.example.org")


@pytest.mark.parametrize(("host", "alone"), [
    *((name, True) for name in LOOPBACK), ("127.0.0.2", True), ("0.0.0.0", False), ("", False), ("attic", False),
])  # fmt: skip
def test_loopback_addresses_are_recognised(host, alone):
    assert is_loopback(host) is alone and AllowedHosts.serving(host).any_address is not alone
