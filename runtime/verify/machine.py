"""The machine that a certificate was measured on, in words."""

import platform
import subprocess
from pathlib import Path

from moembed.bundle.certificate import Machine
from moembed.inference.cpu import available_cpus, instruction_sets
from moembed.inference.kernels import choose_kernels
from moembed.inference.session import import_onnxruntime


def this_machine() -> Machine:
    """The machine that this process runs on.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    return Machine(
        cpu=_cpu_name(),
        instructions=instruction_sets(),
        threads=available_cpus(),
        system=f"{platform.system()} {platform.machine()}",
        onnxruntime=str(import_onnxruntime().__version__),
        kernels=choose_kernels().name,
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)  # noqa: S603
            lines = [f"model name: {done.stdout}"]
        except (OSError, subprocess.SubprocessError):
            lines = []
    names = (value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name")
    # Linux on ARM gives no name.
    return next(filter(None, names), platform.processor() or platform.machine() or "unknown")
