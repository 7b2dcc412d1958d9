"""Order of the files of tests: a process of a parallel run takes file after file, and none shall be left with a long one."""

from support.folders import TESTS

# From 10 seconds of CPU time upwards, the longest first.
LONGEST = (
    "export/test_family_bundles.py",
    "quantize/test_int8.py",
    "export/test_minilm.py",
    "train/test_run.py",
    "runtime/corpus/test_kills.py",
    "runtime/pull/test_many_processes.py",
    "convert/test_conversion.py",
    "server/test_stop.py",
    "docs/test_pages.py",
    "runtime/inference/test_kernels.py",
    "runtime/tokenizer/test_native_tokenizer.py",
    "runtime/test_other_schedulers.py",
    "runtime/tokenizer/test_tokenizer_excerpts.py",
    "runtime/inference/test_routing.py",
    "native/test_float_mode.py",
)
# Half a minute and more in which they mostly wait. One beside two of the others leaves a CPU to each of these.
WAITING = (
    "server/test_connections.py",
    "server/test_names_and_paths.py",
    "server/test_limits.py",
    "runtime/hub/test_download.py",
)


def put_first(items) -> None:
    """Move the tests of these files to the front of a list of pytest's items; the others keep their order."""
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    places |= {TESTS / name: 2 * place + 1.5 for place, name in enumerate(WAITING)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
