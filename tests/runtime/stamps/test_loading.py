"""Vectors with stamps in files: what is loaded, what is refused, and what other programs do to a stamp."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from moembed import StampedVectors, load_vectors, quantize_embeddings, save_vectors, stamp_of
from moembed.bundle.bundle import sha256_of
from moembed.errors import InputError, OutputError
from moembed.stamps.loading import read_stamp
from moembed.stamps.sidecar import write_sidecar
from moembed.stamps.stamp import KEY

TEXTS = ["one", "zwei", "drei kleine Texte", "三"]


@pytest.fixture(scope="module")
def stamped(model):
    """Vectors of this model, with ids."""
    stamp = stamp_of(model, model.prompt_for("document"))
    return StampedVectors(model.encode_document(TEXTS), stamp, ids=[7, 8, 9, 10])


@pytest.fixture
def parquet(stamped, tmp_path):
    save_vectors(tmp_path / "vectors.parquet", stamped)
    return tmp_path / "vectors.parquet"


@pytest.fixture
def npy(stamped, tmp_path):
    save_vectors(tmp_path / "vectors.npy", replace(stamped, ids=None))
    return tmp_path / "vectors.npy"


def jsonl(path, stamped):
    rows = zip(stamped.ids, stamped.vectors.tolist(), strict=True)
    path.write_text("".join(json.dumps({"id": own, "embedding": vector}) + "\n" for own, vector in rows))
    write_sidecar(path, stamped.stamp)


# --- there and back


def test_there_and_back(stamped, parquet, npy, tmp_path):
    jsonl(tmp_path / "vectors.jsonl", stamped)
    table = pq.read_table(parquet)
    with pa.OSFile(str(tmp_path / "file.arrow"), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write(table)
    with pa.OSFile(str(tmp_path / "stream.arrow"), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write(table)
    for path in (parquet, tmp_path / "vectors.jsonl", tmp_path / "file.arrow", tmp_path / "stream.arrow", npy):
        found = load_vectors(path)
        assert found.vectors.tobytes() == stamped.vectors.tobytes()
        assert found.vectors.dtype == np.float32
        assert (found.stamp, len(found), found.name) == (stamped.stamp, 4, str(path))
        assert found.ids == (None if path == npy else [7, 8, 9, 10])
    assert sorted(path.name for path in tmp_path.glob("vectors.npy*")) == ["vectors.npy", "vectors.npy.stamp.json"]
    for path in tmp_path.glob("vectors*"):
        assert "tmp" not in path.read_text("utf-8", "replace"), "no path of this machine"


@pytest.mark.parametrize("precision", ["float16", "int8", "int8-per-vector", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_every_precision(model, tmp_path, precision, suffix):
    vectors = model.encode_document(TEXTS, truncate_dim=256)
    stamp = stamp_of(model, model.prompt_for("document"), 256, precision)
    codes, scales = quantize_embeddings(vectors, precision, scale=stamp.scale)
    given = StampedVectors(codes, stamp, scales=scales if suffix == ".parquet" else None)
    save_vectors(tmp_path / f"codes{suffix}", given)
    found = load_vectors(tmp_path / f"codes{suffix}")
    assert (found.vectors.dtype, found.vectors.tobytes(), found.stamp) == (codes.dtype, codes.tobytes(), stamp)
    assert suffix == ".npy" or found.scales.tobytes() == scales.tobytes()


def test_a_folder_in_the_order_of_its_names(stamped, tmp_path):
    for name, rows in {"part-10": [2, 3], "part-02": [0, 1]}.items():
        part = replace(stamped, vectors=stamped.vectors[rows], ids=[stamped.ids[row] for row in rows])
        save_vectors(tmp_path / f"{name}.parquet", part)
    save_vectors(tmp_path / "part-99.parquet", replace(stamped, vectors=stamped.vectors[:0], ids=[]))
    (tmp_path / "_temporary").mkdir()
    for skipped in ("_temporary/x.parquet", ".y.parquet", "_SUCCESS", "notes.txt"):
        (tmp_path / skipped).write_text("not vectors")
    found = load_vectors(tmp_path)
    assert found.ids == stamped.ids
    assert found.vectors.tobytes() == stamped.vectors.tobytes()


@pytest.mark.parametrize("kind", ["fixed", "list", "large_list", "chunked", "sliced"])
def test_layouts_of_the_column(stamped, tmp_path, kind):
    lists = stamped.vectors.tolist()
    types = {"list": pa.list_(pa.float32()), "large_list": pa.large_list(pa.float32())}
    column = pa.array(lists, types.get(kind, pa.list_(pa.float32(), 384)))
    if kind == "chunked":
        column = pa.chunked_array([column.slice(0, 1), column.slice(1)])
    table = pa.table({"embedding": column}).replace_schema_metadata({KEY: stamped.stamp.to_json()})
    pq.write_table(table.slice(1) if kind == "sliced" else table, tmp_path / "x.parquet", row_group_size=3)
    expected = stamped.vectors[1:] if kind == "sliced" else stamped.vectors
    assert load_vectors(tmp_path / "x.parquet").vectors.tobytes() == expected.tobytes()


def run_folder(path, stamped):
    """A folder as a run of `moembed embed` leaves it: two finished shards with their ids, and the record of the run."""
    own = path / "_moembed"
    (own / "done").mkdir(parents=True)
    (own / "run.json").write_text(json.dumps({"format": 1, "stamp": asdict(stamped.stamp)}))
    for number, rows in enumerate(([0, 1], [2, 3])):
        np.save(path / f"rows-{number}.npy", stamped.vectors[rows])
        ids = "".join(json.dumps({"index": row, "id": stamped.ids[row]}) + "\n" for row in rows)
        (path / f"rows-{number}.ids.jsonl").write_text(ids)
        files = {f"rows-{number}.npy": {"size": 1, "sha256": sha256_of(path / f"rows-{number}.npy")}}
        (own / "done" / f"rows-{number}.json").write_text(json.dumps({"files": files}))
    return path


def test_shards_of_a_run_have_the_stamp_of_its_record(stamped, tmp_path):
    folder = run_folder(tmp_path / "run", stamped)
    found = load_vectors(folder)
    assert (found.ids, found.stamp) == (stamped.ids, stamped.stamp)
    assert found.vectors.tobytes() == stamped.vectors.tobytes()
    np.save(folder / "rows-1.npy", stamped.vectors[:2])
    with pytest.raises(
        InputError, match=r"rows-1.npy has changed since rows-1.json .*same moembed embed command again"
    ):
        load_vectors(folder)
    (folder / "_moembed" / "done" / "rows-1.json").unlink()
    with pytest.raises(InputError, match=r"needs the stamp of .*rows-1.npy, which has none"):
        load_vectors(folder)
    (folder / "_moembed" / "run.json").write_text("{")
    with pytest.raises(InputError, match="run.json is not a stamp"):
        load_vectors(folder)


# --- similarity


def test_similarity_takes_stamped_vectors_and_refuses_another_model(model, small, parquet, stamped):
    query = model.encode_query("one")
    expected = model.similarity(query, stamped.vectors)
    assert model.similarity(query, load_vectors(parquet)).tobytes() == expected.tobytes()
    queries = StampedVectors(query[None], stamp_of(model, model.prompt_for("query")))
    assert model.similarity(queries, stamped).tobytes() == expected.tobytes(), "a query has another prompt"
    said = r"b \(.*vectors.parquet\) cannot be compared with vectors of .*: e5-small-moe, fingerprint .*use one model"
    with pytest.raises(InputError, match=said):
        small.similarity(small.encode("one", prompt=""), load_vectors(parquet))
    with pytest.raises(InputError, match="similarity takes"):
        model.similarity(model.encode_query("one", truncate_dim=256), stamped)


# --- mixed, missing and wrong stamps


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": "query: "}, "differ in prompt: 'passage: ', and 'query: '"),
        ({"fingerprint": "0" * 64}, "differ in fingerprint: "),
        ({"overlong": "mean"}, "differ in overlong: 'error', and 'mean'"),
        ({"kernels": "portable"}, "differ in kernels: 'native', and 'portable'"),
        ({"max_tokens": 128}, "differ in max_tokens: 512, and 128"),
    ],
)
def test_a_folder_of_mixed_stamps_is_refused_with_the_difference(stamped, tmp_path, change, said):
    first = replace(stamped, stamp=replace(stamped.stamp, kernels="native"))
    save_vectors(tmp_path / "a.parquet", first)
    save_vectors(tmp_path / "b.parquet", replace(first, stamp=replace(first.stamp, **change)))
    with pytest.raises(InputError, match=rf"a.parquet and .*b.parquet {said}"):
        load_vectors(tmp_path)


def test_a_name_or_a_version_decides_nothing(stamped, tmp_path):
    save_vectors(tmp_path / "a.parquet", stamped)
    other = replace(stamped.stamp, model="renamed", revision="abc", moembed="0.0.1")
    save_vectors(tmp_path / "b.parquet", replace(stamped, stamp=other))
    assert len(load_vectors(tmp_path)) == 8


def test_no_stamp_is_not_the_same_stamp(stamped, parquet, tmp_path):
    np.save(tmp_path / "plain.npy", stamped.vectors)
    with pytest.raises(InputError, match=r"plain.npy has no stamp.*allow_unstamped=True"):
        load_vectors(tmp_path / "plain.npy")
    found = load_vectors(tmp_path / "plain.npy", allow_unstamped=True)
    assert found.stamp is None
    assert np.asarray(found).tobytes() == stamped.vectors.tobytes()
    for allowed in (False, True):
        with pytest.raises(InputError, match=r"needs the stamp of .*plain.npy, which has none"):
            load_vectors(tmp_path, allow_unstamped=allowed)
    with pytest.raises(InputError, match="save_vectors takes vectors with a stamp"):
        save_vectors(tmp_path / "y.npy", found)
    assert not (tmp_path / "y.npy").exists()


def test_a_file_that_was_written_anew_has_no_stamp(stamped, npy):
    np.save(npy, stamped.vectors[::-1])
    with pytest.raises(InputError, match=r"vectors.npy has changed since vectors.npy.stamp.json was written"):
        load_vectors(npy)
    with pytest.raises(InputError, match="has changed since"):
        load_vectors(npy, allow_unstamped=True)


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.ones((2, 256), np.float32), "vectors of 256 float32, and their stamp says 384 dimensions in float32"),
        (np.ones((2, 384), np.float64), "vectors of 384 float64, and"),
        (np.full((2, 384), 0.1, np.float32), r"vector 0 has length 1.95959, and its stamp says unit length"),
        (np.full((2, 384), np.nan, np.float32), "vector 0 has length nan"),
        (np.zeros((2, 384), np.float32), "vector 0 has length 0"),
        (np.ones(384, np.float32), r"expected vectors of shape \[n, width\], found \(384,\)"),
    ],
)
def test_width_dtype_and_length_are_checked(stamped, tmp_path, vectors, said):
    with pytest.raises(InputError, match=said):
        StampedVectors(vectors, stamped.stamp)
    np.save(tmp_path / "x.npy", vectors)
    write_sidecar(tmp_path / "x.npy", stamped.stamp)
    with pytest.raises(InputError, match=said if vectors.ndim == 2 else r"expected an array .* of shape \[n, width\]"):
        load_vectors(tmp_path / "x.npy")


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_norms_of_floats_are_one_at_every_width(model, precision):
    vectors = model.encode_document(TEXTS, truncate_dim=256, precision=precision)
    assert np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1).max() < 1e-3
    StampedVectors(vectors, stamp_of(model, "", 256, precision))
    prefix = model.encode_document(TEXTS, truncate_dim=256, precision=precision, normalize_embeddings=False)
    with pytest.raises(InputError, match="its stamp says unit length"):
        StampedVectors(prefix, stamp_of(model, "", 256, precision))
    StampedVectors(prefix, stamp_of(model, "", 256, precision, normalized=False))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not a stamp: .*remove it, or embed"),
        ("[]", "is not a stamp"),
        ("{}", "sha256"),
        ('{"sha256": "x", "stamp": {}}', "stamp.json"),
    ],
)
def test_damaged_sidecars(npy, content, said):
    npy.with_name("vectors.npy.stamp.json").write_text(content)
    with pytest.raises(InputError, match=said):
        load_vectors(npy)


@pytest.mark.parametrize("stamp", ["{", "{}", "null", '{"model": 3}'])
def test_damaged_stamps_in_metadata(stamped, tmp_path, stamp):
    table = pa.table({"embedding": pa.array(stamped.vectors.tolist(), pa.list_(pa.float32(), 384))})
    pq.write_table(table.replace_schema_metadata({KEY: stamp}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"the stamp of .*x.parquet.*embed the texts again"):
        load_vectors(tmp_path / "x.parquet")


def broken(path, column):
    pq.write_table(pa.table(column), path)


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("x.npy", lambda path: path.write_bytes(b"\x93NUMPY"), "not an npy file of vectors"),
        ("x.npy", lambda path: np.save(path, np.array(["a"])), "expected an array of numbers"),
        ("x.npy", lambda path: np.save(path, np.array([{}]), allow_pickle=True), "not an npy file of vectors"),
        ("x.parquet", lambda path: path.write_bytes(b"PAR1"), "x.parquet cannot be read"),
        ("x.arrow", lambda path: path.write_bytes(b"ARROW1"), "x.arrow cannot be read"),
        ("x.parquet", lambda path: broken(path, {"text": ["a"]}), "has no single column 'embedding': it has text"),
        ("x.parquet", lambda path: broken(path, {"embedding": ["a"]}), "is string; expected lists of numbers"),
        ("x.parquet", lambda path: broken(path, {"embedding": [["a"]]}), "expected lists of numbers"),
        ("x.parquet", lambda path: broken(path, {"embedding": [[1.0], [1.0, 2.0]]}), "different widths: 1, 2"),
        ("x.parquet", lambda path: broken(path, {"embedding": [[1.0], None]}), "1 rows without a vector"),
        ("x.parquet", lambda path: broken(path, {"embedding": [[1.0, None]]}), "missing components"),
        ("x.jsonl", lambda path: path.write_text('{"embedding": [1]}\n{'), "x.jsonl:2 is not JSON"),
        ("x.jsonl", lambda path: path.write_text('{"embedding": "a"}'), "x.jsonl:1: expected an object with a list"),
        ("x.jsonl", lambda path: path.write_text("[1]"), "x.jsonl:1: expected an object"),
        (
            "x.jsonl",
            lambda path: path.write_text('{"embedding": [1]}\n{"embedding": [1, 2]}'),
            "x.jsonl:2: a vector of 2",
        ),
        ("x.csv", lambda path: path.write_text("d0\n1\n"), "vectors are loaded from files that end with .parquet"),
        ("x.npy", lambda path: None, "no file or folder"),
        ("x", lambda path: path.mkdir(), "no file of vectors in"),
    ],
)
def test_files_that_hold_no_vectors(tmp_path, name, make, said):
    make(tmp_path / name)
    with pytest.raises(InputError, match=said):
        load_vectors(tmp_path / name, allow_unstamped=True)


def test_destinations_that_cannot_hold_vectors(stamped, tmp_path):
    for path, error, said in (
        (tmp_path / "x.json", OutputError, "vectors are saved as .parquet or .npy"),
        (tmp_path / "x.npy", InputError, "npy holds vectors alone"),
        (tmp_path / "none" / "x.parquet", OutputError, "x.parquet"),
    ):
        with pytest.raises(error, match=said):
            save_vectors(path, stamped)
    with pytest.raises(InputError, match="the ids cannot be a column"):
        save_vectors(tmp_path / "x.parquet", replace(stamped, ids=[1, "a", None, {}]))
    with pytest.raises(InputError, match="4 vectors and 1 ids"):
        replace(stamped, ids=[1])
    assert list(tmp_path.iterdir()) == []


# --- what others do to a stamp


def by_duckdb(source, target):
    import duckdb

    duckdb.sql(f"COPY (SELECT * FROM '{source}') TO '{target}' (FORMAT parquet)")


def by_polars(source, target):
    import polars as pl

    pl.read_parquet(source).write_parquet(target)


def by_pandas(source, target):
    pd = pytest.importorskip("pandas")
    pd.read_parquet(source).to_parquet(target)


@pytest.mark.parametrize("rewritten", [by_duckdb, by_polars, by_pandas])
def test_rewritten_files_have_no_stamp_and_the_user_is_told(stamped, parquet, tmp_path, rewritten):
    target = tmp_path / "rewritten.parquet"
    rewritten(parquet, target)
    assert read_stamp(target) is None
    with pytest.raises(InputError, match=r"rewritten.parquet has no stamp, .*programs that rewrite a file drop it"):
        load_vectors(target)
    found = load_vectors(target, allow_unstamped=True)
    assert found.vectors.astype(np.float32).tobytes() == stamped.vectors.tobytes()


def test_a_sidecar_does_not_vouch_for_a_rewritten_file(parquet, stamped, tmp_path):
    shutil.copy(parquet, tmp_path / "x.parquet")
    write_sidecar(tmp_path / "x.parquet", stamped.stamp)
    by_duckdb(parquet, tmp_path / "x.parquet")
    with pytest.raises(InputError, match="has changed since"):
        load_vectors(tmp_path / "x.parquet")


def test_files_that_pyarrow_joined_keep_a_stamp_that_does_not_count(stamped, tmp_path):
    save_vectors(tmp_path / "a.parquet", stamped)
    other = replace(stamped, stamp=replace(stamped.stamp, prompt="query: "))
    save_vectors(tmp_path / "b.parquet", other)
    joined = pa.concat_tables([pq.read_table(tmp_path / f"{name}.parquet") for name in "ab"])
    by_dataset = ds.dataset([str(tmp_path / f"{name}.parquet") for name in "ab"]).to_table()
    for table in (joined, by_dataset):
        pq.write_table(table, tmp_path / "joined.parquet")
        assert pq.read_schema(tmp_path / "joined.parquet").metadata[KEY.encode()] == stamped.stamp.to_json().encode()
        with pytest.raises(InputError, match=r"has 8 rows, and its stamp is for 4: another program joined files"):
            load_vectors(tmp_path / "joined.parquet")


def test_rows_that_pyarrow_selected_keep_their_stamp(stamped, parquet, tmp_path):
    pq.write_table(pq.read_table(parquet, filters=[("id", ">", 8)]), tmp_path / "some.parquet")
    found = load_vectors(tmp_path / "some.parquet")
    assert (found.ids, found.stamp) == ([9, 10], stamped.stamp)
