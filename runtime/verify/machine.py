"""Description of the machine that a certificate was measured on."""

import platform

from moembed.bundle.certificate import Machine
from moembed.inference.cpu import available_cpus, cpu_name, instruction_sets
from moembed.inference.kernels import choose_kernels
from moembed.inference.session import import_onnxruntime


def this_machine() -> Machine:
    """Describe the machine that this process runs on.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    return Machine(
        cpu=cpu_name(),
        instructions=instruction_sets(),
        threads=available_cpus(),
        system=f"{platform.system()} {platform.machine()}",
        onnxruntime=str(import_onnxruntime().__version__),
        kernels=choose_kernels().name,
    )
