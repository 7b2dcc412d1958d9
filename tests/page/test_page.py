"""Files and endpoints of the page, over HTTP; test_page_browser.py tests its behaviour in a browser."""

import importlib.resources
import re

import numpy as np
import pytest

from moembed.version import __version__
from support.serving import serving

QUESTION = "How long does bread stay in the oven?"


def test_page_files_have_a_strict_policy(server):
    folder = importlib.resources.files("moembed.server") / "static"
    paths = {f"/static/{file.name}": file for file in folder.iterdir() if file.name != "index.html"}
    paths["/"] = folder / "index.html"
    assert len(paths) >= 6
    for path, file in paths.items():
        answer = server.get(path)
        assert (answer.status, answer.body) == (200, file.read_bytes())
        policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert {policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect")} == {"'self'"}
        assert policy["frame-ancestors"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_no_foreign_and_no_inline_resources():
    folder = importlib.resources.files("moembed.server") / "static"
    sources = {file.name: file.read_text("utf-8") for file in folder.iterdir()}
    for name, source in sources.items():
        foreign = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", source)) - {"http://www.w3.org"}
        assert not foreign, name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|localStorage|sessionStorage|cookie", source
        )
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", sources["index.html"])
    named = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', sources["index.html"]))
    assert {path.removeprefix("/static/") for path in named} <= set(sources)


def test_missing_page_files(server):
    for path in ("/static/nothing.js", "/static/../page.py", "/static/%2e%2e/page.py", "/static/"):
        answer = server.get(path)
        assert answer.status == 404
        assert "see /openapi.json for all endpoints" in answer.json["error"]
    assert server.post("/static/page.js", {}).status == 405


def test_about_describes_the_models(server, model, int8):
    card = {
        "id": "moembed",
        "name": model.bundle.manifest.name,
        "built_in": True,
        "origin": None,
        "revision": None,
        "recipe": model.bundle.manifest.recipe,
        "size": model.bundle.size,
        "dim": model.dim,
        "max_tokens": 512,
        "prompts": model.prompts,
        "num_experts": model.bundle.manifest.num_experts,
        "kernels": model.kernels,
        "threads": model.threads,
    }
    assert server.get("/about").json == {"version": __version__, "models": [card]}
    with serving(model=(f"one={int8.folder}", "two=built-in"), threads=1) as other:
        cards = other.get("/about").json["models"]
    assert [(c["id"], c["built_in"], c["threads"]) for c in cards] == [("one", False, 1), ("two", True, 1)]


@pytest.mark.parametrize(("task", "options"), [("query", {"prompt_name": "query"}), ("none", {"prompt": ""})])
def test_routing_matches_embedder(server, model, task, options):
    wanted = model.routing(QUESTION, **options)
    answer = server.post("/routing", {"input": QUESTION, "input_type": task}).json
    assert answer["model"] == "moembed"
    assert answer["tokens"] == list(wanted.tokens)
    assert answer["num_experts"] == wanted.num_experts
    assert [layer["layer"] for layer in answer["layers"]] == list(wanted.layers)
    for layer, experts, weights, load in zip(
        answer["layers"], wanted.experts, wanted.weights, wanted.load, strict=True
    ):
        assert layer["experts"] == experts.tolist()
        assert np.array(layer["weights"], np.float32).tobytes() == weights.tobytes()
        assert layer["load"] == load.tolist()
    assert server.post("/routing", {"input": QUESTION, "model": f"moembed:{task}"}).json == answer


def test_routing_errors(server):
    for body, status, words in (
        ({"input": "a"}, 400, "the request names no task"),
        ({"input": "a", "input_type": "sts"}, 400, "no prompt for the task 'sts'"),
        ({"input": "a", "model": "gpt"}, 404, "no model 'gpt'; this server has moembed"),
        ({"input": "word " * 600, "input_type": "query"}, 400, "the model's limit is 512"),
        ({"input": ["a"], "input_type": "query"}, 400, "input: expected `str`"),
        ({"input": "a", "layers": 3}, 400, "unknown field `layers`"),
        ({"input": "a" * 5_000_000, "input_type": "query"}, 413, "5000000 characters"),
        (b'{"input": "\xff"}', 400, "input: at character 0, byte 0xff is not UTF-8"),
    ):
        answer = server.post("/routing", body)
        assert (answer.status, words in answer.json["error"]) == (status, True), answer.json


def test_page_needs_no_key_but_its_data_does():
    with serving(api_keys=("secret",)) as server:
        assert server.get("/").status == server.get("/static/page.js").status == 200
        assert server.get("/about").status == server.post("/routing", {"input": "a"}).status == 401
        assert server.post("/", {"inputs": "a"}).status == 401, "TEI's endpoint at the page's path"
        assert server.get("/about", authorization="Bearer secret").status == 200
