"""Order of the files of tests: a process of a parallel run takes file after file, and none shall be left with a long one."""

from support.folders import TESTS

# From 10 seconds of CPU time upwards, the longest first.
LONGEST = (
    "quantize/test_int8.py",
    "export/test_minilm.py",
    "export/test_family_bundles.py",
    "train/test_run.py",
    "runtime/pull/test_many_processes.py",
    "train/test_renew.py",
    "convert/test_conversion.py",
    "runtime/test_projection.py",
    "native/test_float_mode.py",
    "runtime/verify/test_certified.py",
    "runtime/verify/test_examples.py",
    "server/test_stop.py",
    "server/test_conversion.py",
    "runtime/pull/test_names.py",
    "runtime/tokenizer/test_native_tokenizer.py",
    "export/test_long_texts.py",
    "export/test_export.py",
    "runtime/cli/test_cli.py",
    "runtime/corpus/test_kills.py",
    "runtime/inference/test_forks.py",
    "docs/test_pages.py",
)


def put_first(items) -> None:
    """Move the tests of these files to the front of a list of pytest's items; the others keep their order."""
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
