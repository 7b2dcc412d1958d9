"""S3 as input and output, by a real server on this machine."""

import os
import shutil
import socket

import pytest

from support.corpora import content, write_jsonl


@pytest.fixture(scope="module")
def s3():
    """A real local S3 server; gives the query of its addresses."""
    moto = pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = moto.ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    before = dict(os.environ)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }
    from pyarrow.fs import S3FileSystem

    S3FileSystem(endpoint_override=f"127.0.0.1:{port}", scheme="http", allow_bucket_creation=True).create_dir("bucket")
    yield f"?scheme=http&endpoint_override=127.0.0.1:{port}"
    server.stop()
    os.environ.clear()
    os.environ |= before


def test_s3_in_and_out(run, s3, here, monkeypatch):
    from moembed.corpus import claims
    from moembed.corpus.storage import remote

    monkeypatch.setitem(claims._BEAT_SECONDS, claims.RemoteTarget, 0.2)
    system, _ = remote(f"s3://bucket/x{s3}")
    records = [{"id": n, "text": f"text {n}"} for n in range(25)]
    write_jsonl(here / "a.jsonl", records[:13])
    write_jsonl(here / "b.jsonl", records[13:])
    for name in ("a.jsonl", "b.jsonl", "_SUCCESS"):
        with system.open_output_stream(f"bucket/in/{name}") as out:
            out.write((here / name).read_bytes() if name != "_SUCCESS" else b"")
    run(["a.jsonl", "b.jsonl"], "local")
    for inputs in (
        f"s3://bucket/in{s3}",
        f"s3://bucket/in/*.jsonl{s3}",
        [f"s3://bucket/in/{n}.jsonl{s3}" for n in "ab"],
    ):
        shutil.rmtree(here / "out", ignore_errors=True)
        run(inputs)
        assert content(here / "out") == content(here / "local")
    result = run(["a.jsonl", "b.jsonl"], f"s3://bucket/out{s3}")
    assert result.made == (0, 1, 2)
    for path in sorted((here / "local").glob("*.parquet")):
        with system.open_input_stream(f"bucket/out/{path.name}") as file:
            assert file.read() == path.read_bytes()
    system.delete_file("bucket/out/rows-000000000010.parquet")
    assert run(["a.jsonl", "b.jsonl"], f"s3://bucket/out{s3}").made == (1,)
    with pytest.raises(Exception, match="no such file or folder"):
        run(f"s3://bucket/absent{s3}")
