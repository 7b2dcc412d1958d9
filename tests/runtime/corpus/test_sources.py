"""Files of the input: folders that others wrote, the order of files, and addresses that are not read."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.corpora import write_jsonl


def test_folders_that_others_wrote(rows, refused, here, capsys):
    data = here / "data"
    for folder in (
        data / "lang=de" / "day=1",
        data / "lang=__HIVE_DEFAULT_PARTITION__" / "day=2%20b",
        data / "_temporary" / "0",
    ):
        folder.mkdir(parents=True)
    pq.write_table(pa.table({"text": ["a"]}), data / "lang=de" / "day=1" / "p.parquet")
    pq.write_table(pa.table({"text": ["b"]}), data / "lang=__HIVE_DEFAULT_PARTITION__" / "day=2%20b" / "p.parquet")
    for name in ("_SUCCESS", ".p.parquet.crc", "_temporary/0/p.parquet", "notes.txt", ".hidden.parquet"):
        (data / name).touch()
    (data / "up").symlink_to(data.parent, target_is_directory=True)
    found = rows("-i", "data", "--keep", "lang,day,text")
    assert [(row["text"], row["lang"], row["day"]) for row in found] == [("b", None, "2 b"), ("a", "de", "1")]
    write_jsonl(data / "x.jsonl", [{"text": "c"}])
    assert "files of several formats (jsonl, parquet)" in refused("-i", "data")
    assert len(rows("-i", "data/**/*.parquet", "--force")) == 2
    assert "no file matches" in refused("-i", "data/*.csv")
    assert "cannot be read" in refused("-i", "absent.parquet")
    (here / "empty").mkdir()
    assert "no data files" in refused("-i", "empty")


def test_the_order_of_files_is_stated(run, here):
    names = [f"part-{number}.jsonl" for number in range(1, 13)]
    (here / "parts").mkdir()
    for name in [*names[5:], *names[:5]]:
        write_jsonl(here / "parts" / name, [{"id": name, "text": "a"}])
    for output, inputs, expected in (
        ("folder", "parts", sorted(names)),
        ("glob", "parts/part-*.jsonl", sorted(names)),
        ("two", ["parts/part-2.jsonl", "parts/part-1.jsonl"], [names[1], names[0]]),
    ):
        run(inputs, output, shard_rows=5)
        assert pq.read_table(output)["id"].to_pylist() == expected
        shards = sorted(path.name for path in (here / output).glob("*.parquet"))
        assert shards == [f"rows-{first:012}.parquet" for first in range(0, len(expected), 5)]


@pytest.mark.parametrize(
    "address", ["gs://bucket/x/", "hf://datasets/x/", "https://host/x.jsonl", "file:///x.parquet", "s3a://b/x.npy"]
)
def test_other_schemes_are_refused_in_one_sentence(refused, embed, here, address):
    """As input and as output, where a folder `gs:` would be made."""
    assert "is not read, only local paths and s3://" in refused("-i", address)
    (here / "d.txt").write_text("a")
    for options in ((), ("--on-error", "fail"), ("-f", "csv")):
        code, err = embed("-i", "d.txt", "-o", address, *options)
        assert (code, err.count("\n")) == (2, 1)
        assert f"{address}: {address.partition(':')[0]}:// is not written, only local" in err
    assert [path.name for path in here.iterdir()] == ["d.txt"]
