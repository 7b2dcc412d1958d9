"""Slices of a run, as jobs of an array compute them."""

import threading

import pytest

from moembed.errors import OutputError
from support.corpora import content, write_jsonl


def test_slices_are_the_whole(run, corpus, whole, here):
    for part in (2, 0, 3, 1):
        run(corpus, "sliced", slice=(part, 4), on_error="skip")
    markers = {name: data for name, data in content(here / "sliced").items() if "/done/" not in name}
    assert markers == {name: data for name, data in whole.items() if "/done/" not in name}  # whose records differ by N


def test_slices_at_once_into_one_folder(run, corpus, whole, here):
    """As jobs of an array that all start together, one of them twice; most of 1,500 have nothing to do."""
    results, errors = [], []

    def slice_of(part, slices):
        try:
            results.append(run(corpus, "sliced", slice=(part, slices), on_error="skip"))
        except OutputError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=slice_of, args=(part, 1500)) for part in (0, 1, 2, 3, 4, 5, 5, 6, 1499)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("the slice 5/1500 of sliced is being written by process" in error for error in errors)
    assert len(errors) <= 1
    assert sorted(shard for result in results for shard in result.made) == list(range(6))
    shards = {name: data for name, data in content(here / "sliced").items() if name.startswith("rows-")}
    assert shards == {name: data for name, data in whole.items() if name.startswith("rows-")}
    with pytest.raises(OutputError, match="slices: 1500, and 4"):
        run(corpus, "sliced", slice=(0, 4), on_error="skip")


@pytest.mark.parametrize("text", ["4/4", "5/4", "-1/4", "1/0", "a/4", "1", "1/4/2", "", "¹/4"])
def test_slices_count_from_0(embed, text):
    code, err = embed("-i", "d.jsonl", "-o", "out/", f"--shard={text}")
    assert code == 2
    assert "expected I/N, where I counts from 0" in err


def test_slices_check_only_what_they_read(run, here):
    """A slice takes the inventory over, and hashes the files of its own shards."""
    for name in "ab":
        write_jsonl(here / f"{name}.jsonl", [{"text": f"{name}{n}"} for n in range(10)])
    inputs = ["a.jsonl", "b.jsonl"]
    run(inputs, slice=(0, 2))
    (here / "a.jsonl").write_text((here / "a.jsonl").read_text().replace("a9", "a8"))
    assert run(inputs, slice=(1, 2)).made == (1,)
    with pytest.raises(OutputError, match="sha256 of file 0"):
        run(inputs, slice=(0, 2))
