"""Foreign pages in the user's browser do not reach a server on loopback; clients, proxies and the server's page do."""

import contextlib
import http.server
import json
import shutil
import socket
import subprocess
import threading

import cohere
import numpy as np
import ollama
import openai
import pytest
from huggingface_hub import InferenceClient

from moembed.errors import InputError
from moembed.server.http.hosts import HostPolicy, is_loopback
from moembed.server.settings import Settings
from support.browser import chromium, embed, installed, needs_browser
from support.serving import BODIES, Server, message_of, serving, wait_until

EVIL = "http://evil.example"
OWN = (
    "127.0.0.1 127.0.0.1:8080 127.8.9.1 localhost LOCALHOST:1 localhost. localhost.:80 localhost: moembed.localhost [::1] "
    "[::1]:8080 [::ffff:127.0.0.1] 0.0.0.0:8080 10.0.2.2:8080 192.168.1.5 172.17.0.1 [fe80::1] [fd00::5] "
    "host.docker.internal:8080 host.containers.internal"
).split()
FOREIGN = (
    "evil.example evil.example:8080 localhost.evil.example evil-localhost notlocalhost 127.0.0.1.evil.example user@localhost "
    "localhost:evil localhost:80:80 localhost/evil 2130706433 0x7f.1 127.1 93.184.216.34 [2606:2800::1] [::1 ::1 x "
    "metadata.google.internal evil.local localhost,evil.example"
).split()
needs_nginx = pytest.mark.skipif(
    shutil.which("nginx") is None, reason="no nginx here: apt-get install nginx-light, and this runs"
)


def status_of(port, *lines, body=b""):
    """Send a request line and headers exactly as given; return the status."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "connection: close", "", ""]).encode() + body)
        answer = connection.makefile("rb").read()
        return int(answer.split()[1])


@pytest.mark.parametrize("host", OWN)
def test_local_names_and_addresses_are_allowed(server, host):
    assert status_of(server.port, "GET /metrics HTTP/1.1", f"Host: {host}") == 200


@pytest.mark.parametrize("host", FOREIGN)
def test_foreign_names_are_rejected(server, host):
    for path in ("/", "/health", "/metrics", "/v1/models", "/nothing"):
        assert status_of(server.port, f"GET {path} HTTP/1.1", f"Host: {host}") == 403


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["GET /health HTTP/1.0"], 200),
        (["GET /health HTTP/1.0", "Host: evil.example"], 403),
        (["GET /health HTTP/1.1"], 400),
        (["GET /health HTTP/1.1", "Host: localhost", "Host: evil.example"], 400),
        (["GET /health HTTP/1.1", "Host: evil.example", "X-Forwarded-Host: localhost"], 403),
        (["GET http://evil.example/health HTTP/1.1", "Host: localhost"], 403),
        (["GET http://localhost@evil.example/health HTTP/1.1", "Host: localhost"], 403),
        (["GET http://evil.example?/health HTTP/1.1", "Host: localhost"], 403),
        (["GET HTTP://EVIL.EXAMPLE/health HTTP/1.1", "Host: localhost"], 403),
        (["OPTIONS * HTTP/1.1", "Host: evil.example"], 403),
    ],
)
def test_requests_without_a_host_or_with_two(server, lines, status):
    assert status_of(server.port, *lines) == status


ORIGINS = (
    "http://evil.example",
    "null",
    "https://127.0.0.1.evil.example",
    "chrome-extension://abc",
    "http://localhost:1",
    "x",
)


@pytest.mark.parametrize("path", BODIES)
def test_foreign_origins_in_each_error_format(server, path):
    before = server.metric("moembed_texts_total")
    for origin in ORIGINS:
        answer = server.post(path, BODIES[path](["hello"]), origin=origin, **{"content-type": "text/plain"})
        assert answer.status == 403
        assert "--cors-origins" in message_of(path, answer)
        assert origin in message_of(path, answer)
    answer = server.post(path, BODIES[path](["hello"]), host="evil.example")
    assert answer.status == 403
    assert "--allowed-hosts" in message_of(path, answer)
    assert server.metric("moembed_texts_total") == before
    assert server.metric("moembed_refused_requests_total", reason="forbidden") >= len(ORIGINS)


def test_rejection_does_not_wait_for_the_body(server):
    head = ("POST /embed HTTP/1.1", "Host: localhost", "Content-Length: 1000000")
    assert status_of(server.port, *head, f"Origin: {EVIL}", body=b"{") == 403


def test_errors_quote_little(server):
    answer = server.get("/health", origin="http://" + "a" * 20_000)
    assert (answer.status, len(answer.body) < 1000) == (403, True)


def test_same_origin_is_allowed(server):
    own = f"http://127.0.0.1:{server.port}"
    body = BODIES["/embed"](["hello"])
    assert server.post("/embed", body, origin=own).status == 200
    assert server.post("/embed", body, origin=own.upper()).status == 200
    assert server.post("/embed", body, origin=own, host=f"localhost:{server.port}").status == 403
    assert server.post("/embed", body, origin="https://embed.example", host="localhost").status == 403
    # Browsers send this header for a page behind a proxy with another name; scripts cannot.
    same = {"origin": "https://embed.example", "sec-fetch-site": "same-origin"}
    assert server.post("/embed", body, host="localhost", **same).status == 200
    assert server.post("/embed", body, host="embed.example", **same).status == 403
    for origin, host in (("http://localhost", "localhost:80"), ("https://localhost:443", "localhost")):
        assert server.post("/embed", body, origin=origin, host=host).status == 200


def test_allowed_hosts():
    with serving(allowed_hosts=("embed.example", "*.Team.example", ".corp.example")) as server:
        for host, status in {
            "embed.example:443": 200,
            "EMBED.example.": 200,
            "a.embed.example": 403,
            "a.b.team.example": 200,
            "team.example": 403,
            "x.corp.example": 200,
            "evilcorp.example": 403,
            "localhost": 200,
        }.items():
            assert server.get("/ready", host=host).status == status, host
    with serving(allowed_hosts=("*",)) as server:
        assert server.get("/ready", host="evil.example").status == 200
        assert server.get("/ready", host="evil.example", origin="http://other.example").status == 403


def test_public_address_accepts_any_name_unless_configured():
    with serving(host="0.0.0.0") as server:
        assert server.get("/ready", host="embed.example").status == 200
        assert server.post("/embed", BODIES["/embed"](["x"]), host="a.example", origin="http://a.example").status == 200
        assert server.post("/embed", BODIES["/embed"](["x"]), host="a.example", origin=EVIL).status == 403
    with serving(host="0.0.0.0", allowed_hosts=("embed.example",)) as server:
        assert server.get("/ready", host="other.example").status == 403
        # Probes use the address of the container or of the pod.
        assert server.get("/ready").status == server.get("/ready", host="10.42.0.17:8080").status == 200


def test_address_of_the_connection_is_allowed():
    scope = {
        "type": "http",
        "headers": [(b"host", b"100.64.3.4:8080")],
        "raw_path": b"/",
        "server": ("100.64.3.4", 8080),
    }
    hosts = HostPolicy(Settings(host="0.0.0.0", allowed_hosts=("embed.example",)))
    hosts.check(scope)
    with pytest.raises(Exception, match="100.64.3.4"):
        hosts.check(scope | {"server": ("100.64.3.5", 8080)})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.0.2.1", False),
    ],
)
def test_loopback_addresses(host, loopback):
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    "given",
    ["", " ", "https://embed.example", "embed.example:8080", "a b", "embed.example/x", "bücher.example", "*x", "**"],
)
def test_invalid_host_names(given):
    with pytest.raises(InputError, match="allowed_hosts"):
        HostPolicy(Settings(allowed_hosts=(given,)))


@pytest.mark.parametrize("listed", ["https://app.example", "*"])
def test_listed_cors_origins(listed):
    with serving(cors_origins=(listed,)) as server:
        answer = server.post("/embed", BODIES["/embed"](["x"]), origin="https://app.example")
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, listed)
        assert server.post("/embed", BODIES["/embed"](["x"]), origin="null").status == (200 if listed == "*" else 403)


@contextlib.contextmanager
def nginx(folder, upstream, *lines, tls=False):
    """Run a real reverse proxy in front of a server; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    listen = f"listen 127.0.0.1:{port};"
    if tls:
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        names = ["-subj", "/CN=embed.example", "-keyout", folder / "key", "-out", folder / "certificate", "-days", "1"]
        subprocess.run([*command, *names], check=True, capture_output=True)
        files = f"ssl_certificate {folder}/certificate; ssl_certificate_key {folder}/key;"
        listen = f"listen 127.0.0.1:{port} ssl; {files}"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/log; worker_processes 1; events {{}}\n"
        f"http {{ access_log off; {temporary}\n"
        f"server {{ {listen} location / {{ proxy_pass http://127.0.0.1:{upstream}; {' '.join(lines)} }} }} }}\n"
    )
    command = ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "log")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None)
            yield port
        finally:
            process.terminate()


def vectors_of_clients(url):
    """Return the vectors of one text from each public client."""
    text = "Bake the bread for forty minutes."
    of_openai = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    yield of_openai.embeddings.create(model="moembed:query", input=text).data[0].embedding
    yield ollama.Client(host=url).embed("moembed:query", text).embeddings[0]
    of_cohere = cohere.ClientV2(api_key="none", base_url=url)
    yield (
        of_cohere.embed(
            model="moembed", texts=[text], input_type="search_query", embedding_types=["float"]
        ).embeddings.float_[0]
    )
    yield InferenceClient(url).feature_extraction(text, prompt_name="query")[0]


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_public_clients(server, model, name):
    wanted = model.encode_query("Bake the bread for forty minutes.").tobytes()
    found = list(vectors_of_clients(f"http://{name}:{server.port}"))
    assert [np.array(vector, np.float32).tobytes() for vector in found] == [wanted] * 4


@needs_nginx
@pytest.mark.parametrize("lines", [[], ["proxy_set_header Host $http_host;"]], ids=["Host rewritten", "Host passed on"])
def test_public_clients_through_a_reverse_proxy(model, tmp_path, lines):
    wanted = model.encode_query("Bake the bread for forty minutes.").tobytes()
    with serving(allowed_hosts=("embed.example",)) as server, nginx(tmp_path, server.port, *lines) as port:
        found = list(vectors_of_clients(f"http://localhost:{port}"))
        assert [np.array(vector, np.float32).tobytes() for vector in found] == [wanted] * 4
        assert Server(port).get("/ready", host="embed.example").status == 200
        # A proxy that rewrites the Host header is responsible for checking it.
        assert Server(port).get("/ready", host="evil.example").status == (403 if lines else 200)


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Empty page."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def elsewhere():
    """Run a foreign web server; yield its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_port
        running.shutdown()


@pytest.fixture(scope="module")
def deceived():
    """Browser whose DNS resolves every name below .example to this machine."""
    with chromium(installed(), "--host-resolver-rules=MAP *.example 127.0.0.1") as running:
        yield running


FETCH = """async ([url, options]) => {
    try { const answer = await fetch(url, options); return [answer.type, answer.status, await answer.text()] }
    catch (error) { return [error.name] }
}"""
POST = {"method": "POST", "headers": {"content-type": "text/plain"}, "body": json.dumps(BODIES["/embed"](["hello"]))}


@needs_browser
def test_dns_rebinding_in_a_browser(deceived, server):
    before = server.metric("moembed_texts_total")
    with contextlib.closing(deceived.new_page()) as page:
        assert page.goto(f"{EVIL}:{server.port}/").status == 403
        for path, options in (("/metrics", {}), ("/embed", POST)):
            kind, status, text = page.evaluate(FETCH, [path, options])
            assert (kind, status) == ("basic", 403), "it is of the same origin, and reads the error only"
            assert "moembed_texts" not in text
    assert server.metric("moembed_texts_total") == before


@needs_browser
def test_foreign_page_in_a_browser(deceived, elsewhere):
    here = f"{EVIL}:{elsewhere}"
    with serving() as server, contextlib.closing(deceived.new_page()) as page:
        page.goto(here)
        for url in (server.url, f"http://localhost:{server.port}"):
            refused = server.metric("moembed_refused_requests_total", reason="forbidden")
            assert page.evaluate(FETCH, [f"{url}/embed", POST | {"mode": "no-cors"}]) == ["opaque", 0, ""]
            assert page.evaluate(FETCH, [f"{url}/embed", POST]) == ["TypeError"]
            assert server.metric("moembed_refused_requests_total", reason="forbidden") == refused + 2
        assert server.metric("moembed_texts_total") == 0
    with serving(cors_origins=(here,)) as server, contextlib.closing(deceived.new_page()) as page:
        page.goto(here)
        assert page.evaluate(FETCH, [f"{server.url}/embed", POST])[:2] == ["cors", 200]


@needs_browser
@needs_nginx
@pytest.mark.parametrize(
    ("lines", "tls", "settings", "works"),
    [
        pytest.param(
            ["proxy_set_header Host $http_host;"],
            False,
            {"allowed_hosts": ("embed.example",)},
            True,
            id="Host passed on",
        ),
        pytest.param([], True, {}, True, id="Host rewritten, TLS"),
        pytest.param([], False, {}, False, id="Host rewritten", marks=pytest.mark.long),
        pytest.param([], False, {"cors_origins": ("*",)}, True, id="Host rewritten, listed", marks=pytest.mark.long),
    ],
)
def test_the_page_behind_a_reverse_proxy(deceived, tmp_path, lines, tls, settings, works):
    with serving(**settings) as server, nginx(tmp_path, server.port, *lines, tls=tls) as port:
        # Not `opened`: without TLS the browser logs on its console that it ignores a header.
        with contextlib.closing(deceived.new_context(ignore_https_errors=tls)) as context:
            page = context.new_page()
            page.goto(f"{'https' if tls else 'http'}://embed.example:{port}/")
            if works:
                embed(page, ["one", "two"])
            else:
                kind, status, text = page.evaluate(FETCH, ["/embed", POST])
                assert (kind, status) == ("basic", 403)
                assert "let the reverse proxy pass the Host header on" in text
        assert bool(server.metric("moembed_texts_total")) is works
