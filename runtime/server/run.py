"""Runs the application with uvicorn: one process, or several that share a socket."""

import functools
import os
import socket
import tempfile
from dataclasses import replace
from pathlib import Path

import uvicorn
from uvicorn.supervisors import Multiprocess

from moembed.cpu import available_cpus
from moembed.errors import OutputError
from moembed.server.app import create_app
from moembed.server.logs import configure
from moembed.server.settings import Settings

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def serve(settings: Settings) -> int:
    """Serve until told to stop.

    Returns:
        0 after a stop that was asked for, 2 if a model could not be loaded.
    """
    configure(settings.log_level)
    threads = settings.threads or max(1, available_cpus() // settings.workers)
    settings = replace(settings, threads=threads)
    config = uvicorn.Config(
        functools.partial(create_app, settings),
        factory=True,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.drain_timeout),
    )
    listening = _listen(settings)
    try:
        if settings.workers == 1:
            uvicorn.Server(config).run([listening])
        else:
            with tempfile.TemporaryDirectory(prefix="moembed-metrics-") as folder:
                os.environ[FOLDER_VARIABLE] = folder
                Multiprocess(config, target=uvicorn.Server(config).run, sockets=[listening]).run()
    finally:
        listening.close()
        if settings.unix_socket:
            Path(settings.unix_socket).unlink(missing_ok=True)
    return 0


def _listen(settings: Settings) -> socket.socket:
    try:
        if settings.unix_socket:
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(settings.unix_socket)
        else:
            family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
            listening = socket.socket(family)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((settings.host, settings.port))
        listening.listen(2048)
        listening.set_inheritable(True)
    except OSError as error:
        where = settings.unix_socket or f"{settings.host}:{settings.port}"
        raise OutputError(f"cannot listen on {where}: {error.strerror or error}") from error
    return listening
