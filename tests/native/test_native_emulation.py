"""The native library for aarch64, cross-compiled as for the wheel and run under qemu-user: `pytest -m emulation`."""

import hashlib
import importlib.util
import json
import shutil
import sys

import pytest

from emulation.processors import CORTEX_A72
from emulation.sysroot import SysrootError
from moembed.pull.opening import open_bundle
from moembed.tokenizer.tokenizer import Tokenizer
from support.native_build import build
from support.token_ids import VECTORS
from support.unicode_texts import ADVERSARIAL, random_texts

pytestmark = pytest.mark.emulation

_SCRIPT = """
import hashlib, json, platform, sys
from pathlib import Path
from moembed.native import loader as native_library
from moembed.tokenizer import tokenizer
from moembed.pull.opening import open_bundle
library = native_library.open_library(Path(sys.argv[1]))
assert library.functions is not None, library.reason
tokenizer.native_library = lambda: library
texts = json.loads(Path(sys.argv[2]).read_text("utf-8"))
own = tokenizer.Tokenizer(open_bundle(None), backend="native")
for text in texts:
    (ids,) = own.encode([text])
    bare, spans = own.encode_with_offsets(text)
    print(hashlib.sha256(b"".join(a.astype("<i8").tobytes() for a in (ids, bare, spans))).hexdigest())
print(platform.machine(), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed: pip install ziglang")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", f"{sys.executable} -m ziglang c++ -target aarch64-linux-gnu.2.17")
        return build.build(tmp_path_factory.mktemp("aarch64"), build.Target.of("manylinux_2_17_aarch64"))


def test_aarch64_gives_the_same_ids_and_spans(library, tmp_path):
    if not shutil.which(CORTEX_A72.emulator):
        pytest.skip("qemu-user is not installed: apt-get install qemu-user")
    texts = [*VECTORS, *ADVERSARIAL.values(), *random_texts(3, 1000)]
    (tmp_path / "texts.json").write_text(json.dumps(texts), "utf-8")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    try:
        arguments = (str(library), str(tmp_path / "texts.json"))
        printed = CORTEX_A72.run(_SCRIPT, *arguments, scratch=scratch).split()
    except SysrootError as error:
        pytest.skip(str(error))
    reference = Tokenizer(open_bundle(None), backend="tokenizers")
    for text, found in zip(texts, printed, strict=True):
        (ids,) = reference.encode([text])
        arrays = (ids, *reference.encode_with_offsets(text))
        assert found == hashlib.sha256(b"".join(a.astype("<i8").tobytes() for a in arrays)).hexdigest(), text
