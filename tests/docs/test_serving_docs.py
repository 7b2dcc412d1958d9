"""What docs/serving.md names exists."""

import dataclasses
import re

from moembed.cli import parser
from moembed.server.settings import Settings
from support.folders import ROOT
from support.serving import BODIES

PAGE = (ROOT / "docs" / "serving.md").read_text("utf-8")


def test_every_command_is_one():
    commands = re.findall(r"^moembed (serve.*)$", PAGE, re.M)
    assert len(commands) > 3
    for command in commands:
        assert parser().parse_args(command.split()).command == "serve"


def test_every_setting_and_figure_is_one(server):
    settings = {field.name for field in dataclasses.fields(Settings)}
    named = set(re.findall(r"`(api_keys\w*|allowed_\w+|cors_\w+|drain_\w+)`", PAGE))
    assert named == {"api_keys", "api_keys_file", "allowed_hosts", "cors_origins", "drain_timeout"}
    assert named < settings
    assert server.post("/embed", BODIES["/embed"](["x"]), origin="http://evil.example").status == 403
    figures = server.get("/metrics").body.decode()
    for figure in set(re.findall(r"moembed_\w+_total", PAGE)):
        assert re.search(rf"^{figure}\{{", figures, re.M), figure
