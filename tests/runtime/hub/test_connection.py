"""The hub as people have it: mirrors, tokens, certificates and proxies (N11 to N15)."""

import logging
import socket
import subprocess
import sys

import pytest
from huggingface_hub import constants

from moembed.errors import SourceError
from moembed.hub.client import Patience
from moembed.hub.fetch import fetch
from support.certificates import NAME
from support.hub_server import Fault, Hub, digest_of
from support.proxy import Proxy

WEIGHTS = "model.safetensors"
FILES = ["config.json", WEIGHTS]
PATIENCE = Patience(timeout=5.0, attempts=2, pause=0.01)
SECRET = "hf_very_secret"


def fetched(tmp_path, **options):
    into = tmp_path / "into"
    options = {"revision": None, "patience": PATIENCE} | options
    return fetch("acme/model", FILES, into=into, **options)


def tokens(requests):
    return {request.headers.get("authorization") for request in requests}


# --- mirrors (N11)


@pytest.fixture
def mirror(served):
    """A mirror without the hub's headers, whose ETags are weak and whose answers have no length."""
    served.bare, served.weak, served.lengths = True, True, False
    return served


def test_a_pinned_model_from_a_poor_mirror(mirror, tmp_path):
    pin = digest_of(mirror.weights)
    fetched(tmp_path, revision=mirror.commit, sha256={WEIGHTS: pin})
    assert digest_of(tmp_path / "into" / WEIGHTS) == pin
    mirror.weights.write_bytes(mirror.weights.read_bytes()[:-1])
    with pytest.raises(SourceError, match=f"expected {pin}"):
        fetch(
            "acme/model",
            [WEIGHTS],
            revision=mirror.commit,
            sha256={WEIGHTS: pin},
            into=tmp_path / "2",
            patience=PATIENCE,
        )
    assert list((tmp_path / "2").iterdir()) == []


def test_a_storage_that_answers_no_head_request(mirror, tmp_path):
    """A signed address is often valid for GET alone."""
    mirror.faults[WEIGHTS] = Fault("expired", times=1)
    fetched(tmp_path, revision=mirror.commit, sha256={WEIGHTS: digest_of(mirror.weights)})
    assert [request.method for request in mirror.stored] == ["HEAD", "GET"]


def test_a_mirror_that_does_not_say_what_is_missing(mirror, tmp_path):
    with pytest.raises(
        SourceError, match="holds no nothing.json: .* does not say if file, revision or repository is missing"
    ):
        fetch("acme/model", ["nothing.json"], revision=mirror.commit, patience=PATIENCE)
    assert not list(tmp_path.rglob(".no_exist")), "it is not remembered as absent"


def test_a_branch_from_a_poor_mirror_is_refused(mirror, tmp_path):
    host = mirror.storage.removeprefix("http://")
    with pytest.raises(
        SourceError, match=f"({host}|{mirror.endpoint[7:]}) does not send the header X-Repo-Commit.*HF_ENDPOINT"
    ):
        fetched(tmp_path)
    assert not [request for request in mirror.requests if request.method == "GET"]


def test_a_mirror_that_moved(served, setting, tmp_path, monkeypatch):
    """308 to another host; the token stays with the mirror."""
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with Hub(moved=served.endpoint.replace("127.0.0.1", "localhost")) as mirror:
        setting(mirror)
        assert fetched(tmp_path).commit == served.commit
        assert tokens(mirror.requests) == {f"Bearer {SECRET}"}
    assert tokens(served.requests) == tokens(served.stored) == {None}
    assert digest_of(tmp_path / "into" / WEIGHTS) == digest_of(served.weights)


@pytest.mark.parametrize("place", ["http://h:99999/x", "http://[", "file:///etc/passwd", "ftp://h/x"])
def test_a_redirect_to_no_web_address_is_an_error(served, tmp_path, place):
    served.faults["config.json"] = Fault("status", status=302, headers={"Location": place})
    with pytest.raises(SourceError, match="is not an (http or https )?address"):
        fetched(tmp_path)


def test_a_redirect_with_letters_that_are_not_quoted(served, tmp_path):
    served.weights.with_name("größe 1.json").write_text("{}")
    place = f"{served.endpoint}/acme/model/resolve/{served.commit}/größe 1.json".encode().decode("latin-1")
    served.faults["config.json"] = Fault("status", status=302, headers={"Location": place})
    found = fetch("acme/model", ["config.json"], revision=None, into=tmp_path / "into", patience=PATIENCE)
    assert (found.folder / "config.json").read_text() == "{}"


def test_a_ring_of_redirects_is_an_error(setting, tmp_path):
    with Hub() as mirror:
        mirror.moved = mirror.endpoint
        setting(mirror)
        with pytest.raises(SourceError, match="redirects more than 10 times"):
            fetched(tmp_path)


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("huggingface.example", "is not the address of a hub"),
        ("ftp://huggingface.example", "is not the address of a hub"),
        ("https://", "is not the address of a hub"),
        ("https://huggingface.example:port", "is not the address of a hub"),
        ("https://me:secret-password@huggingface.example", "user name or a password in front of huggingface.example"),
    ],
)
def test_an_endpoint_that_is_none(monkeypatch, tmp_path, endpoint, said):
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    with pytest.raises(SourceError, match=f"HF_ENDPOINT.*{said}") as caught:
        fetched(tmp_path)
    assert "secret-password" not in str(caught.value)


# --- tokens (N12, N13)


def test_only_the_hubs_own_origin_sees_the_token(served, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    caplog.set_level(logging.DEBUG)
    fetched(tmp_path)
    assert tokens(served.requests) == {f"Bearer {SECRET}"}
    assert served.stored
    assert tokens(served.stored) == {None}, "another port is another origin"
    served.refuse_tokens = True
    with pytest.raises(SourceError) as caught:
        fetched(tmp_path)
    assert SECRET not in caplog.text + str(caught.value) + repr(caught.value.__context__)


@pytest.mark.parametrize("value", ["", "\n", "  "])
def test_an_empty_token_is_none(served, tmp_path, monkeypatch, value):
    monkeypatch.setenv("HF_TOKEN", value)
    fetched(tmp_path)
    assert tokens(served.requests) == {None}


@pytest.mark.parametrize("value", [f"{SECRET}\n", f" {SECRET}\r\n"])
def test_a_newline_behind_a_token_is_cut(served, tmp_path, monkeypatch, value):
    monkeypatch.setenv("HF_TOKEN", value)
    fetched(tmp_path)
    assert tokens(served.requests) == {f"Bearer {SECRET}"}


@pytest.mark.parametrize("value", ["hf_a b", "hf_ä", "hf_\x07"])
def test_a_token_that_no_header_can_hold(served, tmp_path, monkeypatch, value):
    monkeypatch.setenv("HF_TOKEN", value)
    with pytest.raises(SourceError, match="the token in HF_TOKEN has characters that no token has") as caught:
        fetched(tmp_path)
    assert value not in str(caught.value)


@pytest.mark.parametrize("place", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "file"])
def test_a_refused_token_is_named_by_its_place(served, tmp_path, monkeypatch, place):
    if place == "file":
        (tmp_path / "token").write_text(f"{SECRET}\n")
        place = f"the file {tmp_path / 'token'}"
    else:
        monkeypatch.setenv(place, SECRET)
    served.refuse_tokens = True
    host = served.endpoint.removeprefix("http://")
    with pytest.raises(
        SourceError, match=f"{host} refused the token in {place} .status 401. for acme/model: renew it"
    ) as caught:
        fetched(tmp_path)
    assert SECRET not in str(caught.value)


def test_a_repository_that_the_token_does_not_open(served, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with pytest.raises(
        SourceError, match="no repository acme/other on the hub .or it is private and the token in HF_TOKEN gives"
    ):
        fetch("acme/other", FILES, revision=None, into=tmp_path / "into", patience=PATIENCE)


# --- certificates (N14)


@pytest.fixture
def no_authorities(monkeypatch):
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_an_own_authority_is_trusted_for_every_byte(
    inspected, tmp_path, monkeypatch, no_authorities, certificates, variable
):
    monkeypatch.setenv(variable, str(certificates.authority))
    fetched(tmp_path)
    assert digest_of(tmp_path / "into" / WEIGHTS) == digest_of(inspected.weights)


@pytest.mark.parametrize("through", ["directly", "through a proxy"])
def test_an_unknown_authority_is_named(inspected, tmp_path, monkeypatch, no_authorities, through):
    host = inspected.endpoint.removeprefix("https://")
    with Proxy() as proxy:
        if through != "directly":
            monkeypatch.setenv("HTTPS_PROXY", proxy.address)
        with pytest.raises(
            SourceError, match=f"the certificate of {host} is issued by '{NAME}'.*SSL_CERT_FILE"
        ) as caught:
            fetched(tmp_path)
    assert "verify" not in str(caught.value).replace("certificate verify failed", "")
    assert inspected.requests == [], "nothing was sent"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_variable_that_names_no_certificates(inspected, tmp_path, monkeypatch, no_authorities, variable):
    monkeypatch.setenv(variable, str(tmp_path / "nothing.pem"))
    with pytest.raises(SourceError, match=f"{variable} = .*nothing.pem'?: there is no such file"):
        fetched(tmp_path)


def test_a_file_that_holds_no_certificates(inspected, tmp_path, monkeypatch, no_authorities):
    (tmp_path / "text.pem").write_text("no certificate")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "text.pem"))
    with pytest.raises(
        SourceError, match="REQUESTS_CA_BUNDLE = .*text.pem'? cannot be read as certificate authorities"
    ):
        fetched(tmp_path)


# --- proxies (N15)


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_every_byte_goes_through_the_proxy(served, tmp_path, monkeypatch, variable):
    with Proxy() as proxy:
        monkeypatch.setenv(variable, proxy.address)
        fetched(tmp_path)
    assert len(proxy.seen) == len(served.requests) + len(served.stored)
    assert {address.partition("/acme")[0].partition("/storage")[0] for _, address in proxy.seen} == {
        served.endpoint,
        served.storage,
    }


def test_a_tunnel_through_the_proxy(inspected, tmp_path, monkeypatch, no_authorities, certificates):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    with Proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.address.removeprefix("http://"))
        fetched(tmp_path)
    hosts = {inspected.endpoint.removeprefix("https://"), inspected.storage.removeprefix("https://")}
    assert set(proxy.seen) == {("CONNECT", host) for host in hosts}
    assert len(proxy.seen) == len(inspected.requests) + len(inspected.stored)


@pytest.mark.parametrize("excluded", ["127.0.0.1", "*", ".example,127.0.0.1"])
def test_no_proxy_is_respected(served, tmp_path, monkeypatch, excluded):
    with Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.address)
        monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", excluded)
        fetched(tmp_path)
    assert proxy.seen == []


@pytest.mark.parametrize("value", ["socks://127.0.0.1:1", "socks5h://127.0.0.1:1", "http://:80", "http://127.0.0.1:x"])
def test_a_proxy_that_cannot_be_used(served, tmp_path, monkeypatch, value):
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(SourceError, match="ALL_PROXY names a proxy of the kind .*name an HTTP proxy .*NO_PROXY"):
        fetched(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    fetched(tmp_path)


def test_an_unusable_proxy_is_no_error_without_the_network(monkeypatch, tmp_path):
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:1")
    code = "from moembed import Embedder; print(Embedder.from_pretrained().dim)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_proxy_that_is_down_is_named(served, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="was not reached through the proxy in HTTP_PROXY: Connection refused"):
        fetched(tmp_path)


def test_a_hub_that_does_not_answer_in_time(setting, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        class Silent:
            endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"

        setting(Silent)
        with pytest.raises(SourceError, match=r"could not be downloaded: 127.0.0.1:\d+ did not answer in 0.2 seconds"):
            fetched(tmp_path, patience=Patience(timeout=0.2, attempts=2, pause=0.01))
