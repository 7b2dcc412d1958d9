"""Processors that qemu-user imitates (Debian: `apt-get install qemu-user`), and Python on them.

qemu-user would show the host's `/proc/cpuinfo`, so each processor gets its own. ONNX Runtime reads it, and so does moembed where
it has no native library: on aarch64, because the library here is the host's.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import moembed
from emulation.sysroot import default_folder, python, sysroot

_ARM = """processor : {number}
BogoMIPS : 50.00
Features : {features}
CPU implementer : 0x41
CPU architecture: 8
CPU variant : {variant}
CPU part : {part}
CPU revision : 1

"""


@dataclass(frozen=True)
class Processor:
    """A processor: qemu's name of it, what `/proc/cpuinfo` says there, and what moembed should make of that."""

    machine: str
    cpu: str
    features: str
    instructions: tuple[str, ...]
    variant: str = "0x0"
    part: str = "0x000"

    @property
    def emulator(self) -> str:
        """The program that imitates it."""
        return f"qemu-{self.machine}"

    def run(self, script: str, *arguments: str, scratch: Path) -> str:
        """Run Python code on it, with moembed and what it needs; gives what was printed.

        Args:
            script: the code.
            arguments: `sys.argv[1:]`.
            scratch: an empty folder, for its `/proc`.

        Raises:
            FileNotFoundError: the emulator is not installed.
            emulation.sysroot.SysrootError: there is no aarch64 Python to be had.
            RuntimeError: the script failed; the text is its stderr.
        """
        if not shutil.which(self.emulator):
            raise FileNotFoundError(f"{self.emulator} is not installed: apt-get install qemu-user")
        interpreter, prefix, packages = sys.executable, scratch / "root", scratch / "packages"
        packages.mkdir()
        paths = [packages]
        if self.machine == "aarch64":
            made = sysroot(default_folder())
            prefix.mkdir()
            for part in made.iterdir():
                (prefix / part.name).symlink_to(part)
            interpreter, paths = str(python(made)), [packages, made / "site"]
        (packages / "moembed").symlink_to(Path(moembed.__file__).parent)
        (prefix / "proc").mkdir(parents=True)
        (prefix / "proc" / "cpuinfo").write_text(self._cpuinfo())
        command = [self.emulator, "-cpu", self.cpu, "-L", str(prefix), "-E", f"PYTHONPATH={':'.join(map(str, paths))}"]
        command += [interpreter, "-c", script, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        if done.returncode:
            raise RuntimeError(f"{self.cpu}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def _cpuinfo(self) -> str:
        if self.machine == "aarch64":
            told = {"features": self.features, "variant": self.variant, "part": self.part}
            return "".join(_ARM.format(number=number, **told) for number in range(os.cpu_count() or 1))
        host = Path("/proc/cpuinfo").read_text()
        return re.sub(r"^flags\s*:.*", f"flags : {self.features}", host, flags=re.MULTILINE)


HASWELL = Processor("x86_64", "Haswell", "avx2 fma", ("AVX2",))
CORTEX_A72 = Processor("aarch64", "cortex-a72", "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid", (), "0x0", "0xd08")
_DOT = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm asimddp"
NEOVERSE_N1 = Processor("aarch64", "neoverse-n1", _DOT, ("NEON dot product",), "0x3", "0xd0c")
# Everything that the emulator knows, under the name of a processor with matrix products of bytes: Neoverse V1.
NEWEST = Processor("aarch64", "max", f"{_DOT} i8mm bf16", ("NEON i8mm", "NEON dot product"), "0x1", "0xd40")
PROCESSORS = (HASWELL, CORTEX_A72, NEOVERSE_N1, NEWEST)
