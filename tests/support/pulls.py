"""Commands in processes of their own that pull models from a local hub."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from support.hub_server import Hub

_OWN = ("HF_", "HUGGING_FACE_", "MOEMBED_", "XDG_")
WEIGHTS = "model.safetensors"


@dataclass
class Place:
    """Home of a user: data folder, cache and home folder of huggingface_hub below one folder, and a hub.

    Attributes:
        root: the folder.
        hub: the hub, or None.
        more: further environment variables.
        template: from the fixture `template`; None to trace the network of a checkpoint.
    """

    root: Path
    hub: Hub | None = None
    more: dict[str, str] = field(default_factory=dict)
    template: Path | None = None

    @property
    def data(self) -> Path:
        return Path(self.environment["MOEMBED_DATA"])

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
        own = {
            "MOEMBED_DATA": str(self.root / "data"),
            "MOEMBED_CACHE": str(self.root / "cache"),
            "HF_HOME": str(self.root / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }
        if self.hub is not None:
            own["HF_ENDPOINT"] = self.hub.endpoint
        if self.template is not None:
            own["PYTHONPATH"] = str(self.template)
        return inherited | own | self.more

    def start(self, *argv: object, **options: object) -> subprocess.Popen:
        """Start a command; stdout and stderr are pipes of text."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"} | options
        return subprocess.Popen([sys.executable, "-m", "moembed", *map(str, argv)], env=self.environment, **pipes)

    def run(self, *argv: object, **options: object) -> subprocess.CompletedProcess:
        """Run a command to its end."""
        process = self.start(*argv, **options)
        out, err = process.communicate(timeout=180)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def python(self, code: str, *argv: object) -> subprocess.Popen:
        """Start Python code."""
        command = [sys.executable, "-c", code, *map(str, argv)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
        return subprocess.Popen(command, env=self.environment, **pipes)


def sent(hub: Hub, path: str = WEIGHTS) -> int:
    """Return how often a file was requested."""
    return sum(request.method == "GET" and request.path == path for request in list(hub.requests))
