"""The settings and figures that docs/serving.md names exist."""

import dataclasses
import re

from moembed.server.settings import Settings
from support.pages import page
from support.serving import BODIES

PAGE = page("docs/serving.md").text


def test_every_setting_and_figure_is_one(server):
    settings = {field.name for field in dataclasses.fields(Settings)}
    named = set(re.findall(r"`(api_keys\w*|allowed_\w+|cors_\w+|drain_\w+)`", PAGE))
    assert named == {"api_keys", "api_keys_file", "allowed_hosts", "cors_origins", "drain_timeout"}
    assert named < settings
    assert server.post("/embed", BODIES["/embed"](["x"]), origin="http://evil.example").status == 403
    figures = server.get("/metrics").body.decode()
    for figure in set(re.findall(r"moembed_\w+_total", PAGE)):
        assert re.search(rf"^{figure}\{{", figures, re.M), figure
