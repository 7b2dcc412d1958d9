"""Settings of the server, from flags, environment variables, a TOML file and defaults, in this order of precedence."""

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
# Connections beyond the limit of requests, kept free for health checks.
SPARE_CONNECTIONS = 8
# Environment variables, as NAME=VALUE, that Kubernetes sets for a Service whose name starts with moembed-serve.
_SERVICE_VARIABLE = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=.*|(\w+_)?PORT=(tcp|udp|sctp)://.*"
)
_MAX_KEY_FILE = 2**20
_LAST_PORT = 2**16 - 1


def _setting(default: Any, text: str, flag: bool = True) -> Any:
    return field(default=default, metadata={"help": text, "flag": flag})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the server.

    A field `queue_tokens` is set by the flag `--queue-tokens`, the environment variable `MOEMBED_SERVE_QUEUE_TOKENS` or the line
    `queue_tokens = ...` of a TOML file. Environment variables separate the items of a list by commas. The metadata of a field
    holds its description, which `moembed serve --help` prints.
    """

    model: tuple[str, ...] = _setting(
        (),
        "bundle folder, hub name or `built-in`, optionally as NAME=BUNDLE; repeat for several models, the first is the default "
        "(default: the built-in model as `moembed`)",
    )
    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8080, "TCP port to listen on; 0 for any free port")
    unix_socket: str | None = _setting(None, "listen on this unix socket instead of TCP")
    workers: int = _setting(1, "worker processes, each with its own queue; they share the mapped weights")
    threads: int | None = _setting(
        None,
        "threads of a model, for one call or shared by several at the same time (default: the available CPUs, divided among the "
        "workers)",
    )
    provider: str = _setting("cpu", "cpu or cuda")
    offline: bool = _setting(False, "do not access the network")
    task: str | None = _setting(
        None,
        "task of requests that name none: query, document, a prompt name of the model, or none for no prompt (default: such "
        "a request is an error if the model requires a prompt)",
    )
    overlong: Literal["error", "truncate", "mean"] = _setting(
        "error", "policy for texts beyond the model's limit, unless the request sets one"
    )
    accept_token_ids: bool = _setting(
        False, "accept arrays of token ids in OpenAI requests, as ids of the served model (not of tiktoken)"
    )
    max_inputs: int = _setting(2048, "maximum texts per request")
    max_characters: int = _setting(4_000_000, "maximum characters per request, over all of its texts")
    max_body_bytes: int = _setting(16 * 2**20, "maximum bytes of a request body")
    max_requests: int = _setting(1024, "maximum concurrent requests per worker; further ones get status 429")
    max_connections: int | None = _setting(
        None,
        "maximum open connections per worker; beyond it, the connections idle for longest are closed (default: 4096, or fewer "
        "if the limit of open files is low)",
    )
    queue_tokens: int = _setting(
        262_144,
        "maximum tokens waiting for a model, per worker, not counting one larger request; requests that do not fit get status "
        "429",
    )
    queue_texts: int = _setting(16_384, "maximum texts waiting for a model, per worker")
    call_tokens: int = _setting(
        1024,
        "maximum tokens of the model calls that run at the same time; larger calls are not faster and delay short texts",
    )
    body_timeout: float = _setting(
        30.0,
        "seconds in which the head and then the body of a request have to arrive, and a client has to read part of a response",
    )
    drain_timeout: float = _setting(30.0, "seconds to wait for accepted requests at shutdown")
    api_keys: tuple[str, ...] = _setting((), "API keys; requests must send one as Authorization: Bearer KEY", False)
    api_keys_file: str | None = _setting(None, "file with one API key per line; # starts a comment")
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        "host name that clients and reverse proxies may use, besides localhost and this machine's addresses; .example for all "
        "subdomains, * for any; repeat for several (default: no others on a loopback address, else any)",
    )
    cors_origins: tuple[str, ...] = _setting(
        (), "origin whose pages may call the server, or * for any; repeat for several"
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "minimum level of the JSON log lines on stderr"
    )

    @property
    def keys(self) -> tuple[str, ...]:
        """All API keys; empty if no key is required.

        Raises:
            InputError: a key is blank or not printable, or the file of keys is unreadable or empty.
        """
        keys = _checked_keys(self.api_keys, "api_keys")
        if self.api_keys_file is None:
            return keys
        return (*keys, *_read_key_file(Path(self.api_keys_file)))


def load_settings(
    flags: Mapping[str, Any], *, environ: Mapping[str, str] = os.environ, file: Path | None = None
) -> Settings:
    """Merge the settings: `flags` override `environ`, which overrides `file`.

    Args:
        flags: values from the command line, by field.
        environ: environment. A variable that starts with `MOEMBED_SERVE_` and is not a setting is an error, unless it is one of
            `service_variables`.
        file: TOML file of `field = value` lines.

    Raises:
        InputError: a name is unknown, a value has the wrong type or is out of range, the file cannot be read, or the setting
            `api_keys` is empty.
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
            raise InputError(f"unknown setting {', '.join(unknown)} in {source}; the settings are {', '.join(known)}")
        merged |= values
        sources |= dict.fromkeys(values, source)
    for name, value in merged.items():
        try:
            merged[name] = msgspec.convert(value, known[name].type, strict=False)
        except msgspec.ValidationError as error:
            shown = "" if name == "api_keys" else f" = {value!r}"
            raise InputError(f"{name}{shown} in {sources[name]}: {str(error)[:1].lower()}{str(error)[1:]}") from None
    if (host := merged.get("host", "")).startswith("[") and host.endswith("]"):
        merged["host"] = host[1:-1]  # IPv6 address as written in a URL
    settings = Settings(**merged)
    if "api_keys" in merged and not _checked_keys(settings.api_keys, f"api_keys in {sources['api_keys']}"):
        raise InputError(f"api_keys in {sources['api_keys']} is empty: set at least one key, or leave the setting out")
    _check_ranges(settings, sources)
    return settings


def _check_ranges(settings: Settings, sources: Mapping[str, str]) -> None:
    for setting in fields(Settings):
        value = getattr(settings, setting.name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if setting.name == "port":
            lowest, highest, expected = 0, _LAST_PORT, f"0 (any free port) to {_LAST_PORT}"
        else:
            lowest, highest, expected = 1, 2**40, "at least 1"
        if not lowest <= value <= highest:
            raise InputError(f"{setting.name} = {value} in {sources[setting.name]}; expected {expected}")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from error


def service_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that Kubernetes sets for a Service called moembed-serve, and that are not settings."""
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
            if name in known and known[name].default == ():
                parts = [part.strip() for part in value.split(",")]
                # Empty keys are kept: they are an error, and must not silently disable authentication.
                values[name] = [part for part in parts if part or name == "api_keys"]
            else:
                values[name] = value
    return values


def _read_key_file(path: Path) -> tuple[str, ...]:
    source = f"api_keys_file {str(path)!r}"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_KEY_FILE:
            raise InputError(f"{source} is not a regular file of at most {_MAX_KEY_FILE} bytes")
        # Editors on Windows may write a byte order mark.
        lines = path.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{source} is not UTF-8 text: save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{source} cannot be read: {error}") from error
    numbered = {number: line.strip() for number, line in enumerate(lines, 1)}
    keys = {number: line for number, line in numbered.items() if line and not line.startswith("#")}
    if not keys:
        raise InputError(f"{source} contains no key: write one per line, or leave the setting out")
    return tuple(key for number, line in keys.items() for key in _checked_keys([line], f"{source}, line {number}"))


def _checked_keys(keys: Sequence[str], source: str) -> tuple[str, ...]:
    """Check keys and strip the spaces around them, which HTTP headers lose. Errors do not quote the keys."""
    stripped = [key.strip() for key in keys]
    for number, key in enumerate(stripped, 1):
        if not key:
            raise InputError(f"{source}: key {number} of {len(keys)} is blank, which would admit everyone: remove it")
        if not key.isprintable():
            raise InputError(f"{source}: key {number} of {len(keys)} contains a non-printable character: retype it")
    return tuple(stripped)
