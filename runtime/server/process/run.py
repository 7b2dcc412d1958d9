"""Runs the application with uvicorn: in this process, or in several that share a socket."""

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

from moembed.bundle.locate import open_bundle
from moembed.errors import MoembedError, OutputError, ProviderError
from moembed.inference.cpu import available_cpus
from moembed.server.app import create_app
from moembed.server.engine.service import sources_of
from moembed.server.http.hosts import Hosts, is_loopback
from moembed.server.logs import configure, log
from moembed.server.metrics import shared_folder
from moembed.server.process.connection_limit import (
    ACCEPTED_AT_ONCE,
    BACKLOG,
    Connections,
    most_connections,
    open_files,
)
from moembed.server.process.protocol import Connection
from moembed.server.process.uvicorn_server import Server
from moembed.server.process.workers import Workers
from moembed.server.settings import DEFAULT_CONNECTIONS, Settings, service_variables


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was accepted; a SIGINT after that does not wait for it.

    Raises:
        KeyboardInterrupt: a SIGINT came; all is tidied up.
        MoembedError: a model cannot be loaded, the address cannot be listened on, or settings contradict each other.
    """
    configure(settings.log_level)
    threads = settings.threads or max(1, available_cpus() // settings.workers)
    # Read once: workers that are started later have the same keys.
    settings = replace(
        settings,
        threads=threads,
        api_keys=settings.keys,
        api_keys_file=None,
        max_connections=most_connections(settings.max_connections, open_files()),
    )
    Hosts(settings)
    if ignored := service_variables(os.environ):
        log(
            logging.WARNING,
            event="ignored",
            variables=ignored,
            message="Kubernetes sets these for a Service whose name starts with moembed-serve; they are no settings. "
            "`enableServiceLinks: false` in the pod's spec keeps them out",
        )
    for source in dict.fromkeys(sources_of(settings.model).values()):
        open_bundle(source, local_files_only=settings.offline)
    with _listening(settings) as listening:
        log(
            logging.INFO,
            event="listening",
            address=str(listening.getsockname()),
            workers=settings.workers,
            threads=threads,
        )
        if not (settings.api_keys or settings.unix_socket or is_loopback(settings.host)):
            log(
                logging.WARNING,
                event="open",
                message=f"anybody who reaches {settings.host} may call: no API keys are set",
            )
        if settings.workers == 1:
            _serve_here(settings, listening)
        else:
            _serve_in_workers(settings, listening)


def _serve_here(settings: Settings, listening: socket.socket) -> None:
    failures: list[MoembedError] = []

    def stop(failure: MoembedError) -> None:
        failures.append(failure)
        server.should_exit = True

    server = Server(_config(settings, functools.partial(create_app, settings, on_failure=stop)))
    server.run([listening])
    if failures:
        raise failures[0]
    if server.interrupted:
        raise KeyboardInterrupt


def _serve_in_workers(settings: Settings, listening: socket.socket) -> None:
    with shared_folder():
        workers = Workers(_config(settings, functools.partial(_worker, settings)), sockets=[listening])
        workers.run()
    if any(process.exitcode == STARTUP_FAILURE for process in workers.processes):
        raise ProviderError("a worker could not load its models: its last line in the log says why")
    if workers.interrupted:
        raise KeyboardInterrupt


def _worker(settings: Settings) -> ASGIApp:
    configure(settings.log_level)
    # A worker that leaves with this code is not started again.
    return create_app(settings, on_failure=lambda _: os._exit(STARTUP_FAILURE))


def _config(settings: Settings, factory: "functools.partial[ASGIApp]") -> uvicorn.Config:
    return uvicorn.Config(
        factory,
        factory=True,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        backlog=ACCEPTED_AT_ONCE,
        # uvicorn only calls it.
        http=functools.partial(  # type: ignore[arg-type]
            Connection,
            seconds=settings.body_timeout,
            connections=Connections(settings.max_connections or DEFAULT_CONNECTIONS),
        ),
        timeout_graceful_shutdown=int(settings.drain_timeout),
    )


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    path = Path(settings.unix_socket) if settings.unix_socket else None
    family = socket.AF_UNIX if path else socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Only of sockets that name their protocol does asyncio switch off Nagle's algorithm, which would cost 40 ms an answer.
    protocol = 0 if path else socket.IPPROTO_TCP
    with socket.socket(family, socket.SOCK_STREAM, protocol) as listening:
        try:
            if path:
                if path.is_socket():  # left behind by a server that was killed
                    path.unlink()
                listening.bind(str(path))
            else:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind((settings.host, settings.port))
            listening.listen(BACKLOG)
        except OSError as error:
            raise OutputError(f"cannot listen on {path or f'{settings.host}:{settings.port}'}: {error}") from error
        try:
            yield listening
        finally:
            if path:
                path.unlink(missing_ok=True)
