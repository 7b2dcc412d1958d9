"""One HTTP request by the standard library: proxies and certificate authorities of the environment, no redirect followed.

huggingface_hub has changed its HTTP library twice. The three of them read different variables for proxies and certificates, and
raise different errors. This module is imported only when the network is needed.
"""

import http.client
import os
import socket
import ssl
import urllib.request
from functools import cache
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

from moembed.errors import SourceError, shown
from moembed.version import __version__

_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_LASTING = (socket.gaierror, ConnectionRefusedError, ValueError, ssl.SSLError, http.client.InvalidURL)
_OPENSSL_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class UnreachableError(SourceError):
    """Host that did not answer, or not now.

    Attributes:
        transient: another attempt may help.
        retry_after: seconds to wait that the host asked for, or None.
    """

    def __init__(self, message: str, *, transient: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.transient, self.retry_after = transient, retry_after


def origin(address: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port of an address, empty ones if it is malformed; a token is sent to equal ones only."""
    try:
        parts = urlsplit(address)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:  # from a port or brackets that are none
        return "", None, None


def host_of(address: str) -> str:
    """Return the host and port of an address for a message: never its path or query, which may hold a signature."""
    return urlsplit(address).netloc.rpartition("@")[2]


def send(address: str, *, method: str, headers: dict[str, str], timeout: float) -> HTTPResponse:
    """Send a request and return the response, whatever its status; its body is not read yet.

    Args:
        address: an http or https address.
        method: `GET` or `HEAD`.
        headers: request headers beside the usual ones.
        timeout: seconds without data until it fails.

    Raises:
        UnreachableError: no connection, or no response.
        SourceError: the address, a proxy or a certificate file cannot be used.
    """
    if origin(address)[0] not in ("http", "https") or not origin(address)[1]:
        raise SourceError(f"{shown(address.partition('?')[0])} is not an http or https address")
    host = host_of(address)
    proxy, variable = _proxy(address)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({origin(address)[0]: proxy} if proxy else {}),
        urllib.request.HTTPSHandler(context=_tls()),
        _EveryStatus,
    )
    opener.addheaders = [("User-Agent", f"moembed/{__version__}"), ("Accept-Encoding", "identity")]
    request = urllib.request.Request(address, method=method, headers=headers)  # noqa: S310  (of a scheme that was checked)
    through = f" through the proxy in {variable}" if variable else ""
    try:
        response: HTTPResponse = opener.open(request, timeout=timeout)
    except URLError as error:
        raise _failure(host, through, timeout, error.reason, address) from error
    except (OSError, HTTPException, ValueError) as error:
        raise _failure(host, through, timeout, error, address) from error
    return response


class _EveryStatus(urllib.request.HTTPErrorProcessor):
    """Processor that returns every response, redirects and errors too."""

    def http_response(self, request: urllib.request.Request, response: HTTPResponse) -> HTTPResponse:  # noqa: ARG002
        return response

    https_response = http_response


def _failure(host: str, through: str, timeout: float, error: object, address: str) -> UnreachableError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(host, error, address, timeout)
    if isinstance(error, TimeoutError):
        return UnreachableError(f"{host} did not answer in {timeout:g} seconds{through}", transient=True)
    # A name that is unknown and a port that is closed stay so; a connection that breaks may be made again.
    lasting = isinstance(error, _LASTING) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return UnreachableError(f"{host} was not reached{through}: {reason}", transient=not lasting)


def _proxy(address: str) -> tuple[str | None, str | None]:
    """Return the proxy for an address and the variable that names it.

    Raises:
        SourceError: the proxy is of a kind that cannot be used.
    """
    scheme, host, port = origin(address)
    proxies = urllib.request.getproxies()
    kind = scheme if proxies.get(scheme) else "all"
    proxy = proxies.get(kind)
    if not proxy or urllib.request.proxy_bypass(f"{host}:{port}"):
        return None, None
    variable = next(
        (name for name in (f"{kind}_proxy", f"{kind}_proxy".upper()) if os.environ.get(name)), "the system settings"
    )
    text = proxy if "://" in proxy else f"http://{proxy}"
    parts = urlsplit(text)
    try:
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # from the port
        usable = False
    if not usable:
        raise SourceError(
            f"{variable} names a proxy of the kind {shown(parts.scheme)}, which cannot be used for {host}: name an HTTP proxy "
            f"(http://HOST:PORT) in {scheme}_proxy, or list {host} in NO_PROXY"
        )
    return text, variable


def _tls() -> ssl.SSLContext:
    """Return the context of the environment's certificate authorities.

    Raises:
        SourceError: a variable names certificates that cannot be read.
    """
    return _context(*(os.environ.get(name, "") for name in (*_CA_VARIABLES, *_OPENSSL_VARIABLES)))


@cache
def _context(*values: str) -> ssl.SSLContext:
    named = dict(zip((*_CA_VARIABLES, *_OPENSSL_VARIABLES), values, strict=True))
    context = ssl.create_default_context()  # OpenSSL reads its two variables
    for variable, path in named.items():
        if not path:
            continue
        if not os.path.exists(path):  # noqa: PTH110  (OpenSSL ignores what is missing)
            if variable == "SSL_CERT_DIR" and os.pathsep in path:
                continue  # a list of folders
            raise SourceError(f"{variable} = {shown(path)}: there is no such file of certificate authorities")
        if variable in _CA_VARIABLES:
            _load(context, variable, path)
    if not any(values):
        _load_certifi(context)
    return context


def _load(context: ssl.SSLContext, variable: str, path: str) -> None:
    try:
        if os.path.isdir(path):  # noqa: PTH112
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(f"{variable} = {shown(path)} cannot be read as certificate authorities: {error}") from error


def _load_certifi(context: ssl.SSLContext) -> None:
    """Add the authorities of certifi, if it is installed: some builds of Python find none of the system's."""
    try:
        import certifi
    except ImportError:
        return
    context.load_verify_locations(certifi.where())


def _untrusted(host: str, error: ssl.SSLCertVerificationError, address: str, timeout: float) -> UnreachableError:
    """Explain a certificate that was not accepted."""
    issuer = _issuer(address, timeout)
    by = f" is issued by {issuer} and" if issuer else ""
    used = [name for name in (*_CA_VARIABLES, *_OPENSSL_VARIABLES) if os.environ.get(name)]
    now = f"; used now: {', '.join(used)}" if used else ""
    return UnreachableError(
        f"the certificate of {host}{by} was not accepted ({error.verify_message}): if your network inspects TLS, save the "
        f"certificate of its authority as a PEM file and name that file in SSL_CERT_FILE{now}"
    )


def _issuer(address: str, timeout: float) -> str | None:
    """Return the issuer of a host's certificate, for a message; None if it cannot be found out. No request is sent.

    `ssl` decodes only a certificate that it has verified: the second connection trusts exactly the one that the first got.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        content = _peer(address, context, timeout).getpeercert(binary_form=True)
        context = ssl.create_default_context(cadata=content or b"")
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        found: Any = _peer(address, context, timeout).getpeercert()
    except (OSError, ValueError, HTTPException):
        return None
    fields = {key: value for group in found["issuer"] for key, value in group}
    names = [fields[key] for key in ("commonName", "organizationName") if key in fields]
    return shown(", ".join(names)) if names else None


def _peer(address: str, context: ssl.SSLContext, timeout: float) -> Any:
    """Return the TLS connection to a host, which is closed when it is no longer referred to."""
    _, host, port = origin(address)
    proxy, _ = _proxy(address)
    to = urlsplit(proxy) if proxy else None
    first = (to.hostname, to.port or 80) if to else (host, port)
    connection = http.client.HTTPSConnection(str(first[0]), first[1], timeout=timeout, context=context)
    if to:
        connection.set_tunnel(str(host), port)
    connection.connect()
    return connection.sock


def header(headers: HTTPMessage, name: str) -> str | None:
    """Return a header without spaces around it; None if it is missing or empty."""
    return (headers.get(name) or "").strip() or None
