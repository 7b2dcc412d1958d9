"""What can be set, and where it comes from: a flag, else the environment, else a TOML file, else the default."""

import os
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from moembed.errors import InputError

PREFIX = "MOEMBED_SERVE_"
DEFAULT_CONNECTIONS = 4096
# Requests are fewer than connections by so many, so that one that only asks for the server's health finds a place.
SPARE_CONNECTIONS = 8
# What Kubernetes puts into the environment for a Service whose name starts with moembed-serve, as NAME=VALUE.
_SERVICE_VARIABLE = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=.*|(\w+_)?PORT=(tcp|udp|sctp)://.*"
)
_KEY_FILE_AT_MOST = 2**20
_LAST_PORT = 2**16 - 1


def _setting(default: Any, text: str, flag: bool = True) -> Any:
    return field(default=default, metadata={"help": text, "flag": flag})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set. A field `queue_tokens` is the flag `--queue-tokens`, the environment variable
    `MOEMBED_SERVE_QUEUE_TOKENS` and the line `queue_tokens = ...` of a TOML file; a list is separated by commas in the
    environment.

    The fields' metadata says what each means; `moembed serve --help` prints it.
    """  # noqa: D205

    model: tuple[str, ...] = _setting(
        (),
        "bundle folder, hub name or `built-in`, or NAME=one of these; repeat it for several, the first is the default "
        "(default: the built-in model as `moembed`)",
    )
    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8080, "TCP port to listen on; 0 for any free one")
    unix_socket: str | None = _setting(None, "listen on this unix socket instead of TCP")
    workers: int = _setting(1, "processes, each with its own queue; they share the mapped weights")
    threads: int | None = _setting(
        None, "threads of one call (default: the CPUs available, shared between the workers)"
    )
    provider: str = _setting("cpu", "cpu or cuda")
    offline: bool = _setting(False, "never touch the network")
    task: str | None = _setting(
        None,
        "task of texts for which a request names none: query, document, a prompt name of the model, or none for no prompt "
        "(default: such a request is an error if the model's prompts are mandatory)",
    )
    overlong: Literal["error", "truncate", "mean"] = _setting(
        "error", "what becomes of a text beyond the model's limit where an API's request leaves it open"
    )
    accept_token_ids: bool = _setting(
        False, "accept arrays of token ids in OpenAI requests, as ids of the model served (never of tiktoken)"
    )
    max_inputs: int = _setting(2048, "most texts of a request")
    max_characters: int = _setting(4_000_000, "most characters of a request, over all of its texts")
    max_body_bytes: int = _setting(16 * 2**20, "most bytes of a request's body")
    max_requests: int = _setting(1024, "most requests at a time, in each worker; one more is answered 429")
    max_connections: int | None = _setting(
        None,
        "most connections at a time, in each worker; beyond, those that are idle for longest are closed (default: 4096, less "
        "where the limit of open files is low)",
    )
    queue_tokens: int = _setting(
        262_144,
        "most tokens waiting for a model, in each worker, beside those of one request that has more; what does not fit is "
        "answered 429",
    )
    queue_texts: int = _setting(16_384, "most texts waiting for a model, in each worker")
    call_tokens: int = _setting(1024, "tokens of one call of the model: more is no faster, and short texts wait longer")
    body_timeout: float = _setting(
        30.0,
        "seconds in which a request's head, and then its body, has to arrive, and a client has to read some of an answer",
    )
    drain_timeout: float = _setting(30.0, "seconds that a stop waits for requests that were accepted")
    api_keys: tuple[str, ...] = _setting(
        (), "keys, one of which a request has to carry as Authorization: Bearer KEY", False
    )
    api_keys_file: str | None = _setting(None, "file with one key a line; # starts a comment")
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        "host name under which clients and reverse proxies may ask, besides localhost and this machine's addresses; .example "
        "for all names below it, * for any; repeat it for several (default: none more on a loopback address, else any)",
    )
    cors_origins: tuple[str, ...] = _setting(
        (), "origin whose pages may call the server, or * for any; repeat it for several"
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "least level of the JSON log lines on stderr"
    )

    @property
    def keys(self) -> tuple[str, ...]:
        """All API keys; empty if anybody may call.

        Raises:
            InputError: a key is blank or not printable, or the file of keys cannot be read or holds none.
        """
        given = _checked_keys(self.api_keys, "api_keys")
        if self.api_keys_file is None:
            return given
        return (*given, *_keys_of_file(Path(self.api_keys_file)))


def load_settings(
    flags: Mapping[str, Any], *, environ: Mapping[str, str] = os.environ, file: Path | None = None
) -> Settings:
    """Put the settings together: `flags` before `environ` before `file`.

    Args:
        flags: field -> value, those that were given on the command line.
        environ: the environment; a variable that starts with `MOEMBED_SERVE_` and is no setting is refused, unless it is one
            of `service_variables`.
        file: a TOML file of `field = value` lines.

    Raises:
        InputError: a name is unknown, a value has the wrong type or is out of range, the file cannot be read, or keys were
            set that name none.
    """
    import msgspec

    known = {setting.name: setting for setting in fields(Settings)}
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, values in (
        (str(file), _read_toml(file) if file else {}),
        ("the environment", _read_environment(environ, known)),
        ("the command line", dict(flags)),
    ):
        if unknown := sorted(set(values) - set(known)):
            raise InputError(f"{source} sets {', '.join(unknown)}; there are {', '.join(known)}")
        merged |= values
        sources |= dict.fromkeys(values, source)
    for name, value in merged.items():
        try:
            merged[name] = msgspec.convert(value, known[name].type, strict=False)
        except msgspec.ValidationError as error:
            shown = "" if name == "api_keys" else f" = {value!r}"
            raise InputError(f"{name}{shown} in {sources[name]}: {str(error)[:1].lower()}{str(error)[1:]}") from None
    if (host := merged.get("host", "")).startswith("[") and host.endswith("]"):
        merged["host"] = host[1:-1]  # an IPv6 address as it stands in an address bar
    settings = Settings(**merged)
    if "api_keys" in merged and not _checked_keys(settings.api_keys, f"api_keys in {sources['api_keys']}"):
        raise InputError(f"api_keys in {sources['api_keys']} names no key: name one, or leave the setting out")
    _check_ranges(settings, sources)
    return settings


def _check_ranges(settings: Settings, sources: Mapping[str, str]) -> None:
    for setting in fields(Settings):
        value = getattr(settings, setting.name)
        port = setting.name == "port"
        least, most = (0, _LAST_PORT) if port else (1, 2**40)
        if isinstance(value, int | float) and not isinstance(value, bool) and not least <= value <= most:
            expected = f"{least} (any free one) to {most}" if port else f"at least {least}"
            raise InputError(f"{setting.name} = {value} in {sources[setting.name]}; expected {expected}")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from error


def service_variables(environ: Mapping[str, str]) -> list[str]:
    """Names of the variables that Kubernetes makes of a Service called moembed-serve, and that are no settings."""
    return [
        name
        for name, value in environ.items()
        if name.startswith(PREFIX) and _SERVICE_VARIABLE.fullmatch(f"{name.removeprefix(PREFIX)}={value}")
    ]


def _read_environment(environ: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    ignored = set(service_variables(environ))
    for variable, value in environ.items():
        if variable.startswith(PREFIX) and variable not in ignored:
            name = variable.removeprefix(PREFIX).lower()
            many = name in known and known[name].default == ()
            # An empty key must not pass for no key: it is refused by name.
            keep_empty = name == "api_keys"
            parts = [part.strip() for part in value.split(",")]
            values[name] = [part for part in parts if part or keep_empty] if many else value
    return values


def _keys_of_file(path: Path) -> tuple[str, ...]:
    what = f"api_keys_file {str(path)!r}"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _KEY_FILE_AT_MOST:
            raise InputError(f"{what} is not a regular file of at most {_KEY_FILE_AT_MOST} bytes")
        # Windows' editors put a byte order mark in front.
        lines = path.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{what} is not UTF-8 text: save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{what} cannot be read: {error}") from error
    numbered = {number: line.strip() for number, line in enumerate(lines, 1)}
    found = {number: line for number, line in numbered.items() if line and not line.startswith("#")}
    if not found:
        raise InputError(f"{what} holds no key: write one a line, or leave the setting out")
    return tuple(key for number, line in found.items() for key in _checked_keys([line], f"{what}, line {number}"))


def _checked_keys(keys: Sequence[str], source: str) -> tuple[str, ...]:
    """Keys without the spaces around them, which no header carries; the errors quote none of them."""
    stripped = [key.strip() for key in keys]
    for number, key in enumerate(stripped, 1):
        if not key:
            raise InputError(f"{source}: key {number} of {len(keys)} is blank, and would let anybody in: remove it")
        if not key.isprintable():
            raise InputError(
                f"{source}: key {number} of {len(keys)} holds a character that cannot be printed: retype it"
            )
    return tuple(stripped)
