"""Order of the files of tests: a process of a parallel run takes file after file, and none shall be left with a long one."""

from support.folders import TESTS

# From 10 seconds of CPU time upwards, the longest first.
LONGEST = (
    "export/test_family_bundles.py",
    "quantize/test_int8.py",
    "export/test_minilm.py",
    "train/test_run.py",
    "runtime/pull/test_many_processes.py",
    "runtime/inference/test_routing.py",
    "runtime/corpus/test_kills.py",
    "runtime/tokenizer/test_native_tokenizer.py",
    "convert/test_conversion.py",
    "runtime/inference/test_kernels.py",
    "runtime/tokenizer/test_tokenizer_excerpts.py",
    "server/test_stop.py",
    "runtime/corpus/test_formats.py",
    "docs/test_pages.py",
    "runtime/test_other_schedulers.py",
    "native/test_guard_pages.py",
)


def put_first(items) -> None:
    """Move the tests of these files to the front of a list of pytest's items; the others keep their order."""
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
