"""Client of a hub: redirects, the token, repeated attempts, and errors that say what the hub answered."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPResponse
from urllib.parse import quote, urljoin

from moembed.errors import SourceError, shown
from moembed.hub.access import Token
from moembed.hub.transport import UnreachableError, header, host_of, origin, send

_MAX_REDIRECTS = 10
_TICK = 0.2  # seconds
_REDIRECTS = (301, 302, 303, 307, 308)
_IN_ADDRESSES = "!#$%&'()*+,/:;=?@[]~"
_BUSY = (408, 429, 500, 502, 503, 504)
_WINDOW_ENDS = re.compile(r";\s*t\s*=\s*(\d+)")  # of the header RateLimit, in seconds
_BAD_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105  (the hub's X-Error-Message)


class AbsentError(SourceError):
    """File that the repository does not have, or, without the network, the cache.

    Attributes:
        stated: the hub said so, and not only that something is missing.
    """

    stated: bool = False


@dataclass(frozen=True)
class Patience:
    """Limits of waiting.

    Attributes:
        timeout: seconds without data until a connection is given up.
        attempts: number of attempts in a row that may fail.
        pause: seconds before the second attempt; they double with each further one.
        longest_wait: seconds to wait for one file altogether, whatever the hub asks for.
        enough: bytes of one attempt after which the count of attempts starts again.
    """

    timeout: float = 30.0
    attempts: int = 5
    pause: float = 1.0
    longest_wait: float = 120.0
    enough: int = 16 << 20


@dataclass(frozen=True)
class Answer:
    """Response after redirects.

    Attributes:
        response: the last response.
        address: its address.
        hub_headers: headers of the hub, in lower case; those of the first response that has them.
    """

    response: HTTPResponse
    address: str
    hub_headers: dict[str, str]

    @property
    def host(self) -> str:
        """Host and port that sent it."""
        return host_of(self.address)


class Attempts:
    """Count of failed attempts for one file, and the pauses between them.

    Args:
        patience: the limits.
        log: function for a line about a pause.
        tick: function that is called several times a second during a pause; it may raise to end it.
    """

    def __init__(self, patience: Patience, log: Callable[[str], object], tick: Callable[[], object]) -> None:
        self._patience, self._log, self._tick = patience, log, tick
        self._failures, self._waited = 0, 0.0

    def succeeded(self) -> None:
        """Start to count again."""
        self._failures, self._waited = 0, 0.0

    def after(self, error: UnreachableError) -> None:
        """Wait before the next attempt.

        Raises:
            UnreachableError: the error, if there is to be no further attempt.
        """
        self._failures += 1
        pause = self._patience.pause * 2 ** (self._failures - 1)
        if error.retry_after is not None:
            pause = max(error.retry_after, self._patience.pause)
        if not error.transient or self._failures >= self._patience.attempts:
            raise error
        if self._waited + pause > self._patience.longest_wait:
            asked = "" if error.retry_after is None else f"; it asks to wait {error.retry_after:,.0f} seconds"
            raise UnreachableError(f"{error}{asked}") from error
        self._waited += pause
        self._log(f"{error}: trying again in {pause:.0f} s")
        while pause > 0:
            self._tick()
            time.sleep(min(pause, _TICK))
            pause -= _TICK


@dataclass(frozen=True)
class Client:
    """Client of one hub.

    Attributes:
        endpoint: address of the hub.
        token: sent to the endpoint's scheme, host and port only.
        patience: limits of waiting.
        log: function for lines about waiting.
    """

    endpoint: str
    token: Token | None = None
    patience: Patience = Patience()
    log: Callable[[str], object] = lambda _line: None

    def open(self, method: str, address: str, headers: dict[str, str] | None = None) -> Answer:
        """Send a request and follow redirects. A HEAD request ends where the hub itself names the size of the file.

        Returns:
            The response, of any status but those of a busy host.

        Raises:
            UnreachableError: no response, or a busy host (429, 5xx).
            SourceError: too many redirects, or one to an unusable address.
        """
        found: dict[str, str] = {}
        start = address
        for _ in range(_MAX_REDIRECTS):
            response = send(
                address, method=method, headers=self._headers(address, headers), timeout=self.patience.timeout
            )
            found = {name.lower(): value for name, value in response.headers.items()} | found  # the hub's, not a CDN's
            target = header(response.headers, "Location")
            if response.status not in _REDIRECTS or not target:
                break
            if method == "HEAD" and "x-linked-size" in found:
                break
            response.close()
            try:
                # Some hosts send bytes that an address has to quote; header values are decoded as latin-1.
                address = urljoin(address, quote(target.encode("latin-1"), safe=_IN_ADDRESSES))
            except ValueError:
                raise SourceError(f"{host_of(address)} redirects to {shown(target)}, which is not an address") from None
        else:
            raise SourceError(f"{host_of(start)} redirects more than {_MAX_REDIRECTS} times: check HF_ENDPOINT")
        answer = Answer(response, address, found)
        if response.status in _BUSY:
            response.close()
            raise self._busy(answer)
        return answer

    def ask(self, method: str, address: str, headers: dict[str, str] | None = None) -> Answer:
        """Send a request as `open` does, again if the host is busy or the connection breaks."""
        attempts = Attempts(self.patience, self.log, lambda: None)
        while True:
            try:
                return self.open(method, address, headers)
            except UnreachableError as error:
                attempts.after(error)

    def refusal(self, answer: Answer, file: str, repo: str, revision: str) -> SourceError:
        """Return the error that describes an unsuccessful status of the hub or of the host that it redirects to."""
        at, status = f"{repo} at revision {revision}", answer.response.status
        code, message = answer.hub_headers.get("x-error-code", ""), answer.hub_headers.get("x-error-message", "")
        if code == "GatedRepo":
            return SourceError(f"{repo} is gated: accept its terms on the hub and log in (hf auth login)")
        if (status == 401 and self.token and code != "RepoNotFound") or message == _BAD_TOKEN:
            which = f" in {self.token.origin}" if self.token else ""
            return SourceError(
                f"{answer.host} refused the token{which} (status 401) for {repo}: renew it, or remove it if the model is public"
            )
        if code == "RepoNotFound" or status == 401:
            access = f"the token in {self.token.origin} gives no access" if self.token else "no token is set"
            return SourceError(f"no repository {repo} on the hub (or it is private and {access})")
        if code == "RevisionNotFound":
            return SourceError(f"{repo} has no revision {revision}: pass one of its commits, tags or branches")
        if status == 404:
            unclear = f": {answer.host} does not say if file, revision or repository is missing (status 404)"
            absent = AbsentError(f"{at} holds no {file}{'' if code == 'EntryNotFound' else unclear}")
            absent.stated = code == "EntryNotFound"
            return absent
        said = f": {shown(message)}" if message else ""
        return SourceError(f"{file} of {at} could not be downloaded: {answer.host} answered with status {status}{said}")

    def _headers(self, address: str, more: dict[str, str] | None) -> dict[str, str]:
        headers = dict(more or {})
        if self.token and origin(address) == origin(self.endpoint):
            headers["Authorization"] = f"Bearer {self.token.value}"
        return headers

    def _busy(self, answer: Answer) -> UnreachableError:
        status = answer.response.status
        what = f"{answer.host} answered with status {status}"
        if status == 429:
            advice = "log in (HF_TOKEN) for a higher limit" if self.token is None else "wait"
            what = f"{answer.host} limits the rate of requests (status 429): {advice}, or name a mirror in HF_ENDPOINT"
        return UnreachableError(what, transient=True, retry_after=_retry_after(answer))


def refuse_web_page(answer: Answer, file: str, repo: str) -> None:
    """Make sure that a response is not a web page.

    Raises:
        SourceError: it is one.
    """
    if "text/html" in (answer.response.headers.get("Content-Type") or "").lower() and not file.endswith(".html"):
        raise web_page(answer.host, file, repo)


def web_page(host: str, file: str, repo: str) -> SourceError:
    """Return the error about a host that sent a web page in place of a file."""
    return SourceError(
        f"{host} sent a web page in place of {file} of {repo}: a login page, a proxy or a mirror answered for the hub; open that "
        "host in a browser, or check HF_ENDPOINT and the proxy"
    )


def _retry_after(answer: Answer) -> float | None:
    """Return the seconds that a host asks to wait: a number, a date, or the end of its rate limit's window."""
    text = header(answer.response.headers, "Retry-After")
    if text is None:
        window = _WINDOW_ENDS.search(answer.hub_headers.get("ratelimit", ""))
        return float(window[1]) if window else None
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
