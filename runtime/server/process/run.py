"""Runner of the application: uvicorn in this process, or in several worker processes that share a socket."""

import contextlib
import functools
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from moembed.errors import MoembedError, OutputError, ProviderError
from moembed.inference.cpu import available_cpus
from moembed.pull.opening import open_bundle, to_convert
from moembed.server.app import create_app
from moembed.server.engine.service import parse_models
from moembed.server.http.hosts import HostPolicy, is_loopback
from moembed.server.logs import LogReporter, configure, log
from moembed.server.metrics import shared_folder
from moembed.server.process.connection_limit import (
    ACCEPTED_AT_ONCE,
    BACKLOG,
    ConnectionLimit,
    raise_file_limit,
    resolve_max_connections,
)
from moembed.server.process.protocol import HttpProtocol
from moembed.server.process.uvicorn_server import Server
from moembed.server.process.workers import Workers
from moembed.server.settings import DEFAULT_CONNECTIONS, Settings, service_variables


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain accepted requests; a second SIGINT stops without draining.

    Raises:
        KeyboardInterrupt: SIGINT was received; raised after the cleanup.
        MoembedError: a model cannot be loaded, the address is not available, or settings contradict each other.
    """
    configure(settings.log_level)
    threads = settings.threads or max(1, available_cpus() // settings.workers)
    # The key file is read once, so that workers that are started later have the same keys.
    settings = replace(
        settings,
        threads=threads,
        api_keys=settings.keys,
        api_keys_file=None,
        max_connections=resolve_max_connections(settings.max_connections, raise_file_limit()),
    )
    HostPolicy(settings)  # raises if they are invalid, before a model is loaded
    if ignored := service_variables(os.environ):
        log(
            logging.WARNING,
            event="ignored",
            variables=ignored,
            message="Kubernetes sets these variables for a Service whose name starts with moembed-serve; they are not settings. "
            "Set `enableServiceLinks: false` in the pod spec to avoid them",
        )
    converting = False
    for source in dict.fromkeys(parse_models(settings.model).values()):
        if to_convert(source, LogReporter(), local_files_only=settings.offline) is None:
            open_bundle(source, local_files_only=settings.offline, reporter=LogReporter())
        else:
            converting = True
    with _listen(settings) as listener:
        log(
            logging.INFO,
            event="listening",
            address=str(listener.getsockname()),
            workers=settings.workers,
            threads=threads,
        )
        if not (settings.api_keys or settings.unix_socket or is_loopback(settings.host)):
            log(
                logging.WARNING,
                event="open",
                message=f"no API keys are set: everyone who can reach {settings.host} may use the server",
            )
        if settings.workers == 1:
            _serve_in_process(settings, listener)
        else:
            _serve_in_workers(settings, listener, converting=converting)


def _serve_in_process(settings: Settings, listener: socket.socket) -> None:
    failures: list[MoembedError] = []

    def stop(failure: MoembedError) -> None:
        failures.append(failure)
        server.should_exit = True

    server = Server(_config(settings, functools.partial(create_app, settings, on_failure=stop)))
    server.run([listener])
    if failures:
        raise failures[0]
    if server.interrupted:
        raise KeyboardInterrupt


def _serve_in_workers(settings: Settings, listener: socket.socket, *, converting: bool) -> None:
    with shared_folder():
        workers = Workers(
            _config(settings, functools.partial(_create_worker_app, settings, converting=converting)),
            sockets=[listener],
        )
        workers.run()
    if any(process.exitcode == STARTUP_FAILURE for process in workers.processes):
        raise ProviderError("a worker could not load its models: see its last log line for the reason")
    if workers.interrupted:
        raise KeyboardInterrupt


def _create_worker_app(settings: Settings, *, converting: bool) -> ASGIApp:
    configure(settings.log_level)
    # uvicorn does not restart a worker that exits with this code.
    return create_app(settings, on_failure=lambda _: os._exit(STARTUP_FAILURE), converting=converting)


def _config(settings: Settings, factory: "functools.partial[ASGIApp]") -> uvicorn.Config:
    return uvicorn.Config(
        factory,
        factory=True,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        loop="asyncio",  # uvloop, which uvicorn takes if it is there, stops accepting when files run out
        backlog=ACCEPTED_AT_ONCE,
        # Declared as a class; uvicorn only calls it.
        http=functools.partial(  # type: ignore[arg-type]
            HttpProtocol,
            timeout=settings.body_timeout,
            limit=ConnectionLimit(settings.max_connections or DEFAULT_CONNECTIONS),
        ),
        timeout_graceful_shutdown=int(settings.drain_timeout),
    )


@contextlib.contextmanager
def _listen(settings: Settings) -> Iterator[socket.socket]:
    path = Path(settings.unix_socket) if settings.unix_socket else None
    family = socket.AF_UNIX if path else socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets with an explicit protocol; Nagle's algorithm would delay responses by 40 ms.
    protocol = 0 if path else socket.IPPROTO_TCP
    with socket.socket(family, socket.SOCK_STREAM, protocol) as listener:
        try:
            if path:
                if path.is_socket():  # left behind by a killed server
                    path.unlink()
                listener.bind(str(path))
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((settings.host, settings.port))
            listener.listen(BACKLOG)
        except OSError as error:
            raise OutputError(f"cannot listen on {path or f'{settings.host}:{settings.port}'}: {error}") from error
        try:
            yield listener
        finally:
            if path:
                path.unlink(missing_ok=True)
