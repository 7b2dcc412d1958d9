"""Hosts and origins that may call the server, so that a foreign page in the user's browser may not.

A foreign page has two ways to a server on a loopback address. It gives its own name the address 127.0.0.1 (DNS rebinding):
the Host header tells. Or it sends a request to another origin than its own: the Origin header tells. Clients that are no
browser send no Origin.
"""

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.types import Scope

from moembed.errors import InputError
from moembed.server.errors import ForbiddenError, quoted
from moembed.server.settings import Settings

_HOST = r"\[[0-9a-f:.]+\]|[0-9a-z_.-]+"
_AUTHORITY = re.compile(rf"({_HOST})(?::[0-9]*)?", re.ASCII)
_PATTERN = re.compile(rf"\*|\*?\.[0-9a-z_.-]+|{_HOST}|[0-9a-f:.]+", re.ASCII)
# The last two are what container engines call the machine that they run on.
_LOCAL_NAMES = ("localhost", ".localhost", "host.docker.internal", "host.containers.internal")
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Hosts:
    """Checks the Host and Origin headers of a request.

    Args:
        settings: `host`, `unix_socket`, `allowed_hosts` and `cors_origins` are used.

    Raises:
        InputError: a line of `allowed_hosts` is no host name.
    """

    def __init__(self, settings: Settings) -> None:
        given = [_pattern(host) for host in settings.allowed_hosts]
        loopback = not settings.unix_socket and is_loopback(settings.host)
        self._any = "*" in given or not (given or loopback)
        self._names = {*_LOCAL_NAMES, *given, _canonical(settings.host.lower())}
        self._origins = {origin.lower() for origin in settings.cors_origins}

    def check(self, scope: Scope) -> None:
        """Check a request before anything of its body is read.

        Raises:
            ForbiddenError: it names another host than this server, or comes from a page that may not call.
        """
        authorities, origins, same = [_authority_of_target(scope)], [], False
        for name, value in scope["headers"]:
            if name == b"host":
                authorities.append(value.decode("latin-1").strip().lower())
            elif name == b"origin":
                origins.append(value.decode("latin-1").strip().lower())
            elif name == b"sec-fetch-site":  # no script can set it
                same = value == b"same-origin"
        authorities = [authority for authority in authorities if authority]
        for authority in authorities:
            if not (self._any or self._allows(authority, scope)):
                raise ForbiddenError(
                    f"the host {quoted(authority)} is none of this server's: ask for it as localhost, or allow the name with "
                    "`moembed serve --allowed-hosts NAME`"
                )
        if same or "*" in self._origins:
            return
        for origin in origins:
            if origin and origin not in self._origins and not _is_origin_of(origin, authorities):
                raise ForbiddenError(
                    f"pages of the origin {quoted(origin)} may not call this server: allow them with `moembed serve "
                    "--cors-origins ORIGIN`; if the page is this server's own, let the reverse proxy pass the Host header on"
                )

    def _allows(self, authority: str, scope: Scope) -> bool:
        match = _AUTHORITY.fullmatch(authority)
        if match is None:
            return False
        name = _canonical(match[1])
        if address := _address(name):
            # What the connection was made to is ours, whatever network it belongs to.
            server = scope.get("server")
            return _is_local(address) or name in self._names or bool(server and address == _address(server[0]))
        return name in self._names or any(name.endswith(known) for known in self._names if known.startswith("."))


def is_loopback(host: str) -> bool:
    """Whether an address or name to listen on is reached from this machine only."""
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
            f"allowed_hosts: {given!r} is no host name; expected a name without scheme, port and path such as "
            "embed.example, an IP address, .example for all names below it, or * for any (names in other scripts as xn--...)"
        )
    return pattern if pattern == "*" else _canonical(pattern.removeprefix("*"))


def _canonical(host: str) -> str:
    """A host without the brackets of an IPv6 address and the dot that ends a full name."""
    name = host.strip("[]").removesuffix(".")
    return str(_address(name) or name)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(name)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_local(address: IPv4Address | IPv6Address) -> bool:
    if address.is_loopback or address.is_unspecified or address.is_link_local:
        return True
    return any(address in network for network in _PRIVATE)


def _authority_of_target(scope: Scope) -> str:
    """Host and port of a request's target, "" unless it is a whole URL."""
    target: bytes = scope.get("raw_path") or b""
    if target.startswith(b"/"):
        return ""
    rest = target.partition(b"://")[2]
    return re.split(rb"[/?#]", rest)[0].decode("latin-1").lower()


def _is_origin_of(origin: str, authorities: list[str]) -> bool:
    scheme, _, own = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme, ":")
    return bool(own) and own.removesuffix(port) in [authority.removesuffix(port) for authority in authorities]
