"""Environment variables that Kubernetes sets for a Service, with the same prefix as the settings."""

import json
import os
import re
import subprocess
import sys

import pytest

from moembed.errors import InputError
from moembed.server.settings import load_settings, service_variables
from support.serving import Server, wait_until

# As in https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
SERVICE = {
    "MOEMBED_SERVE_SERVICE_HOST": "10.96.12.34",
    "MOEMBED_SERVE_SERVICE_PORT": "8080",
    "MOEMBED_SERVE_SERVICE_PORT_HTTP": "8080",
    "MOEMBED_SERVE_PORT": "tcp://10.96.12.34:8080",
    "MOEMBED_SERVE_PORT_8080_TCP": "tcp://10.96.12.34:8080",
    "MOEMBED_SERVE_PORT_8080_TCP_PROTO": "tcp",
    "MOEMBED_SERVE_PORT_8080_TCP_PORT": "8080",
    "MOEMBED_SERVE_PORT_8080_TCP_ADDR": "10.96.12.34",
}
NEIGHBOURS = {
    "MOEMBED_SERVE_QUEUE_SERVICE_HOST": "fd00::7",
    "MOEMBED_SERVE_QUEUE_PORT": "udp://[fd00::7]:53",
    "MOEMBED_SERVE_QUEUE_PORT_53_UDP_ADDR": "fd00::7",
    "MOEMBED_SERVE_V2_PORT_9_SCTP": "sctp://10.0.0.1:9",
}


def test_service_variables_are_not_settings():
    environ = SERVICE | NEIGHBOURS | {"MOEMBED_PORT": "tcp://10.0.0.1:1", "MOEMBED_SERVICE_HOST": "10.0.0.1"}
    assert service_variables(environ | {"MOEMBED_SERVE_WORKERS": "2"}) == [*SERVICE, *NEIGHBOURS]
    settings = load_settings({}, environ=environ | {"MOEMBED_SERVE_WORKERS": "2"})
    assert (settings.port, settings.workers) == (8080, 2)
    assert load_settings({"port": 9}, environ=environ).port == 9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "10.96.12.34:8080"),
        ("PORT", "http://10.96.12.34:8080"),
        ("PORT", ""),
        ("PORTS", "tcp://10.96.12.34:8080"),
        ("HOSTS", "10.96.12.34"),
        ("SERVICE", "x"),
        ("QUEUE_PORT", "8080"),
        ("PORT_8080", "tcp://10.96.12.34:8080"),
    ],
)
def test_similar_variables_are_still_rejected(name, value):
    with pytest.raises(InputError, match="port = |unknown setting"):
        load_settings({}, environ={f"MOEMBED_SERVE_{name}": value})


def test_server_in_a_pod_warns_once_about_ignored_variables():
    command = [sys.executable, "-m", "moembed", "serve", "--threads", "1", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | SERVICE) as running:
        try:
            ignored, listening = (json.loads(running.stderr.readline()) for _ in range(2))
            server = Server(int(re.search(r", (\d+)\)", listening["address"])[1]))
            wait_until(lambda: server.get("/ready").status == 200)
            running.terminate()
            rest = running.stderr.read()
        finally:
            running.kill()
    assert (ignored["level"], ignored["event"], ignored["variables"]) == ("warning", "ignored", list(SERVICE))
    assert "enableServiceLinks" in ignored["message"]
    assert '"ignored"' not in rest
