"""Independent numpy implementations of the networks, in float64: the reference of all the others.

Each family has its own. They share no code with the PyTorch networks: they follow the descriptions of the models and read a file
by its own names, and need numpy and safetensors only.
"""

from collections.abc import Sequence
from pathlib import Path

from moembed.models.checkpoint import open_checkpoint
from moembed.models.families import family_of
from moembed.models.oracle_result import OracleResult


class Oracle:
    """Network of a checkpoint folder, whose tensors are read from the mapped file when needed.

    Args:
        folder: a checkpoint in the published layout.

    Attributes:
        config: the network's configuration.

    Raises:
        CheckpointError: the folder does not hold exactly this network.
    """

    def __init__(self, folder: Path) -> None:
        self._context = open_checkpoint(folder, "np")
        self.config, weights = self._context.__enter__()
        self._oracle = family_of(self.config).oracle(self.config, weights)

    def close(self) -> None:
        """Release the mapped file."""
        self._context.__exit__(None, None, None)

    def run(self, ids: list[int]) -> OracleResult:
        """Compute one text given its token ids, special tokens included."""
        return self.run_all([ids])[0]

    def run_all(self, texts: Sequence[list[int]]) -> list[OracleResult]:
        """Compute several texts, in less time than one by one: every weight is read once."""
        return self._oracle.run_all(texts)
