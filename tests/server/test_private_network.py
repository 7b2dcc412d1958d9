"""Private network access: pages of listed origins reach a local server, others do not."""

import http.server
import threading

import numpy as np
import pytest

from support.browser import needs_browser
from support.serving import serving

ASKS = {
    "origin": "https://app.example",
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type",
    "access-control-request-private-network": "true",
}


@pytest.fixture(scope="module")
def open_to_app():
    with serving(cors_origins=("https://app.example",), api_keys=("k",), task="document") as running:
        yield running


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings/", "/api/embed", "/", "/v1/none"])
def test_preflight_of_a_listed_origin(open_to_app, path):
    answer = open_to_app.ask("OPTIONS", path, None, ASKS)
    assert answer.status == 200
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert answer.headers["access-control-allow-headers"] == "authorization, content-type"
    without = {name: value for name, value in ASKS.items() if "private" not in name}
    answer = open_to_app.ask("OPTIONS", path, None, without)
    assert answer.status == 200
    assert "access-control-allow-private-network" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://app.example.evil.example", "http://app.example"]
)
def test_preflight_of_an_unlisted_origin(open_to_app, small_server, origin):
    for server in (open_to_app, small_server):
        answer = server.ask("OPTIONS", "/v1/embeddings", None, ASKS | {"origin": origin})
        assert answer.status >= 400
        assert "access-control-allow-origin" not in answer.headers


def test_wildcard_origin():
    with serving(cors_origins=("*",)) as server:
        answer = server.ask("OPTIONS", "/v1/embeddings", None, ASKS)
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-private-network"] == "true"


def test_exposed_headers(open_to_app):
    answer = open_to_app.get("/v1/models", origin="https://app.example", authorization="Bearer k")
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"x-moembed-task", "x-truncated-inputs", "x-request-id", "retry-after"} <= set(exposed)


class _PublicPage(http.server.BaseHTTPRequestHandler):
    """Serve a page that the browser considers part of the public internet."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-security-policy", "treat-as-public-address")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def origin():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _PublicPage) as serving_page:
        thread = threading.Thread(target=serving_page.serve_forever, daemon=True)
        thread.start()
        yield f"http://localhost:{serving_page.server_port}"
        serving_page.shutdown()
        thread.join(30)


ASK = """async url => {
    const body = JSON.stringify({input: "hello", model: "moembed"});
    const headers = {"content-type": "application/json"};
    try {
        const answer = await fetch(url, {method: "POST", headers, body});
        return [(await answer.json()).data[0].embedding, answer.headers.get("x-moembed-task")];
    } catch (error) {
        return String(error);
    }
}"""


@needs_browser
def test_a_public_page_in_a_real_browser(browser, origin, model):
    with serving(cors_origins=(origin,), task="query") as listed, serving(task="query") as closed:
        # Chromium asks the user, where it once asked the server in the preflight.
        context = browser.new_context(permissions=["local-network-access"])
        try:
            page = context.new_page()
            page.goto(origin)
            vector, task = page.evaluate(ASK, f"{listed.url}/v1/embeddings")
            assert np.array(vector, np.float32).tobytes() == model.encode_query("hello").tobytes()
            assert task == "query (default)"
            assert page.evaluate(ASK, f"{closed.url}/v1/embeddings") == "TypeError: Failed to fetch"
        finally:
            context.close()
