"""The hosts under which the page answers, and the websites from which it takes requests.

Any website can make a browser send requests to this computer. Two headers reveal such requests: ``Host``, the name that the
browser looked up (a website can point its own name at this computer: DNS rebinding), and ``Origin``, the website that made
the browser send the request.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfdfd.errors import InputError, short_repr

__all__ = ["LOOPBACK", "AllowedHosts", "is_loopback", "split_authority"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)(?::(\d{1,5}))?")
ORIGIN = re.compile(r"(https?)://([^/@?#\s]+)")
DEFAULT_PORTS = {"http": 80, "https": 443}


def split_authority(text: str) -> tuple[str, int | None] | None:
    """Split ``host:port`` into the host in lower case without brackets, and the port; return None if it is malformed."""
    match = AUTHORITY.fullmatch(text.lower())
    if match is None:
        return None
    host, port = match.groups()
    if host.startswith("["):
        if (address := _address(host[1:-1])) is None:
            return None
        host = address.compressed
    return host, None if port is None else int(port)


def is_loopback(host: str) -> bool:
    """Whether a server that listens on ``host`` can be reached only from this computer."""
    address = _address(host)
    return host.lower() in LOOPBACK or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


@dataclass(frozen=True)
class AllowedHosts:
    """Allowed values of the headers ``Host`` and ``Origin``.

    Attributes:
        names: hosts that requests may be for, in lower case.
        any_address: whether requests may be for any IP address; unlike a name, a website cannot point it at another
            computer.
        public: (host, port) under which a proxy shows the page; a port of None is the default of the scheme.
    """

    names: frozenset[str]
    any_address: bool = False
    public: frozenset[tuple[str, int | None]] = frozenset()

    @classmethod
    def serving(cls, host: str, allowed: Any = ()) -> AllowedHosts:
        """Return the allowed values for a page that listens on ``host``.

        Args:
            host: on a loopback address, the page answers only to loopback names; otherwise also to any IP address, to this
                computer's own name, and to that name with ``.local``.
            allowed: further names, with the port where a proxy shows the page on an unusual one.

        Raises:
            InputError: one of ``allowed`` is not a valid name.
        """
        entries = allowed if isinstance(allowed, (list, tuple)) else [allowed]
        public = frozenset(_public(entry) for entry in entries)
        names = {*LOOPBACK, host.lower(), *(name for name, _ in public)} - {""}
        if is_loopback(host):
            return cls(frozenset(names), False, public)
        computer = socket.gethostname().lower()
        return cls(frozenset({*names, computer, f"{computer.split('.')[0]}.local"}), True, public)

    def is_host(self, header: str) -> bool:
        """Whether a request may be for this ``Host``."""
        parsed = split_authority(header)
        if parsed is None:
            return False
        return parsed[0] in self.names or (self.any_address and _address(parsed[0]) is not None)

    def is_own(self, origin: str, host: str) -> bool:
        """Whether ``origin`` (``scheme://host:port``) is this page in a request for ``host``."""
        match = ORIGIN.fullmatch(origin.lower())
        sender, receiver = split_authority(match[2]) if match else None, split_authority(host)
        if match is None or sender is None or receiver is None:
            return False
        default_port = DEFAULT_PORTS[match[1]]

        def with_port(authority: tuple[str, int | None]) -> tuple[str, int]:
            return authority[0], default_port if authority[1] is None else authority[1]

        return with_port(sender) in {with_port(receiver), *(with_port(public) for public in self.public)}

    def refusal(self, headers: Mapping[str, Sequence[str]], navigates: bool) -> tuple[int, str] | None:
        """Return the status and the sentence of a refusal, or None where the request is the page's own.

        Args:
            headers: values by names in lower case.
            navigates: whether the request only opens the page, as a link on another website may.
        """
        hosts, origins = headers.get("host", ()), headers.get("origin", ())
        if len(hosts) != 1 or not self.is_host(hosts[0]):
            name = re.sub(r"[^\w.:\[\]-]+", "_", hosts[0] if hosts else "")[:80] or "no name"
            return 421, (
                f"this page does not answer to {name}; open it as {min(self.names)}, or start it with allowed_hosts=[NAME]"
            )
        if len(origins) > 1 or any(not self.is_own(origin, hosts[0]) for origin in origins):
            return (
                403,
                "this page takes no requests from other websites; behind a proxy, start it with allowed_hosts=[NAME]",
            )
        sites = headers.get("sec-fetch-site", ())
        if not origins and any(site in ("cross-site", "same-site") for site in sites) and not navigates:
            return 403, "this page takes no requests from other websites"
        return None


def _public(entry: Any) -> tuple[str, int | None]:
    match = re.fullmatch(r"(?:(https?)://)?([^/]+)/?", entry.lower()) if isinstance(entry, str) else None
    parsed = None if match is None else split_authority(match[2])
    if match is None or parsed is None:
        raise InputError(
            f"allowed_hosts: expected names such as photos.example.org or photos.example.org:8443, got {short_repr(entry)}"
        )
    port = DEFAULT_PORTS[match[1]] if match[1] and parsed[1] is None else parsed[1]
    return parsed[0], port
