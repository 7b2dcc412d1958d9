"""Checks of the Host and Origin headers, which keep foreign pages in the user's browser from calling the server.

A foreign page can reach a server on a loopback address in two ways. DNS rebinding resolves the page's own name to 127.0.0.1:
the Host header reveals it. A cross-origin request reveals itself by its Origin header. Clients other than browsers send no
Origin.
"""

import re
import socket
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.types import Scope

from moembed.errors import InputError
from moembed.server.errors import ForbiddenError, quoted
from moembed.server.settings import Settings

_HOST = r"\[[0-9a-f:.]+\]|[0-9a-z_.-]+"
_AUTHORITY = re.compile(rf"({_HOST})(?::[0-9]*)?", re.ASCII)
_PATTERN = re.compile(rf"\*|\*?\.[0-9a-z_.-]+|{_HOST}|[0-9a-f:.]+", re.ASCII)
# The last two are the names of the host machine inside a container.
_LOCAL_NAMES = ("localhost", ".localhost", "host.docker.internal", "host.containers.internal")
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
_MAX_KEPT = 64
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class HostPolicy:
    """Allowed hosts and origins.

    Args:
        settings: `host`, `unix_socket`, `allowed_hosts` and `cors_origins` are used.

    Raises:
        InputError: an entry of `allowed_hosts` is not a host name.
    """

    def __init__(self, settings: Settings) -> None:
        given = [_pattern(host) for host in settings.allowed_hosts]
        loopback = not settings.unix_socket and is_loopback(settings.host)
        self._any = "*" in given or not (given or loopback)
        self._names = {*_LOCAL_NAMES, *given, _canonical(settings.host.lower())}
        self._origins = {origin.lower() for origin in settings.cors_origins}

    def check(self, scope: Scope) -> None:
        """Check a request before its body is read.

        Raises:
            ForbiddenError: the request names a host that is not allowed, or comes from a page whose origin is not.
        """
        authorities, origins, same = [_target_authority(scope)], [], False
        for name, value in scope["headers"]:
            if name == b"host":
                authorities.append(value.decode("latin-1").strip().lower())
            elif name == b"origin":
                origins.append(value.decode("latin-1").strip().lower())
            elif name == b"sec-fetch-site":  # scripts cannot set it
                same = value == b"same-origin"
        authorities = [authority for authority in authorities if authority]
        for authority in authorities:
            if not (self._any or self._allows(authority, scope)):
                raise ForbiddenError(
                    f"the host {quoted(authority)} is not allowed: use localhost, or allow the name with `moembed serve "
                    "--allowed-hosts NAME`"
                )
        if same or "*" in self._origins:
            return
        for origin in origins:
            if origin and origin not in self._origins and not _is_origin_of(origin, authorities):
                raise ForbiddenError(
                    f"the origin {quoted(origin)} is not allowed: allow its pages with `moembed serve --cors-origins ORIGIN`; "
                    "if it is this server's own page, configure the reverse proxy to forward the Host header"
                )

    def _allows(self, authority: str, scope: Scope) -> bool:
        match = _AUTHORITY.fullmatch(authority)
        if match is None:
            return False
        name = _canonical(match[1])
        if address := _address(name):
            # The address that the connection was made to is the server's own, in whatever network it is.
            server = scope.get("server")
            return _is_local(address) or name in self._names or bool(server and address == _address(server[0]))
        return name in self._names or any(name.endswith(known) for known in self._names if known.startswith("."))


def is_loopback(host: str) -> bool:
    """Return whether an address or name to listen on is only reachable from this machine."""
    if address := _address(_canonical(host)):
        return address.is_loopback
    try:
        found = [_address(str(entry[4][0])) for entry in socket.getaddrinfo(host, None)]
    except (OSError, UnicodeError):
        return False
    return all(address is not None and address.is_loopback for address in found)


def _pattern(given: str) -> str:
    pattern = given.strip().lower()
    if not _PATTERN.fullmatch(pattern):
        raise InputError(
            f"allowed_hosts: {given!r} is not a host name; expected a name without scheme, port and path such as "
            "embed.example, an IP address, .example for all subdomains, or * for any (internationalized names as xn--...)"
        )
    return pattern if pattern == "*" else _canonical(pattern.removeprefix("*"))


def _canonical(host: str) -> str:
    """Return a host without the brackets of an IPv6 address and the trailing dot of a fully qualified name."""
    name = host.strip("[]").removesuffix(".")
    return str(_address(name) or name)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    # Longer names are not kept: clients choose them.
    return _parse_address(name) if len(name) <= _MAX_KEPT else _parse_address.__wrapped__(name)


@lru_cache(256)
def _parse_address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(name)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_local(address: IPv4Address | IPv6Address) -> bool:
    if address.is_loopback or address.is_unspecified or address.is_link_local:
        return True
    return any(address in network for network in _PRIVATE)


def _target_authority(scope: Scope) -> str:
    """Return the host and port of a request target in absolute form, else ""."""
    target: bytes = scope.get("raw_path") or b""
    if target.startswith(b"/"):
        return ""
    rest = target.partition(b"://")[2]
    return re.split(rb"[/?#]", rest)[0].decode("latin-1").lower()


def _is_origin_of(origin: str, authorities: list[str]) -> bool:
    """Return whether an origin is the server itself, addressed by one of some authorities."""
    scheme, _, name = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme, ":")
    return bool(name) and name.removesuffix(port) in [authority.removesuffix(port) for authority in authorities]
