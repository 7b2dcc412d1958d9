"""The program that compiles the native library, which installed packages do not contain."""

import importlib.util
import sys

from support.folders import ROOT

NATIVE = ROOT / "runtime" / "native"
_spec = importlib.util.spec_from_file_location("moembed_native_build", NATIVE / "build.py")
build = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)
