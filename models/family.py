"""What a family of networks provides: the only interface through which the rest of the package knows one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moembed.models.config import NetworkConfig
from moembed.models.oracle_result import OracleResult
from moembed.models.parameters import Parameter
from moembed.models.pooling import Pooling
from moembed.models.weights import Weights

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from moembed.models.text_encoder import TextEncoder


class FamilyOracle(ABC):
    """Reference implementation of a family in NumPy and float64, over the tensors of a file by their own names."""

    @abstractmethod
    def run_all(self, texts: Sequence[list[int]]) -> list[OracleResult]:
        """Compute texts given their token ids, special tokens included."""


class Family(ABC):
    """A family of networks.

    Attributes:
        name: name of its room in `moembed.models`.
        model_types: values of `model_type` in `config.json` that it reads.
        graph_name: name of a graph.
        config: class of its configurations.
        poolings: what it can pool by.
        default_pooling: what a checkpoint pools by that does not say so, because upstream's code does; None if it must say so.
    """

    name: ClassVar[str]
    model_types: ClassVar[frozenset[str]]
    graph_name: ClassVar[str]
    config: ClassVar[type[NetworkConfig]]
    poolings: ClassVar[tuple[Pooling, ...]]
    default_pooling: ClassVar[Pooling | None]

    @property
    def specs(self) -> "Traversable":
        """Folder of the specs of its known models, one TOML file each."""
        return resources.files(f"moembed.models.{self.name}") / "specs"

    def reads(self, raw: Mapping[str, Any]) -> bool:
        """Return True for the fields of a `config.json` that `read_config` reads, or refuses by name."""
        return raw.get("model_type") in self.model_types

    @abstractmethod
    def read_config(self, raw: dict[str, Any], pooling: Pooling, sha256: str) -> NetworkConfig:
        """Read the fields of a `config.json`.

        Args:
            raw: the fields.
            pooling: what sentence-transformers' files pool by.
            sha256: digest of the file, or "": some facts of a published model stand in no file of it.

        Raises:
            CheckpointError: a field is missing, of the wrong type, or asks for something that is not implemented.
        """

    @abstractmethod
    def parameters(self, config: Any) -> list[Parameter]:
        """Return all parameters of a network, in the order of its layers."""

    @abstractmethod
    def tables(self, config: Any) -> dict[str, NDArray[np.float32]]:
        """Return what the graph holds beside the parameters, by name: it follows from the configuration."""

    @abstractmethod
    def network(self, config: Any) -> "TextEncoder":
        """Return the PyTorch network without weights, on torch's current device.

        Raises:
            MissingExtraError: torch is not installed.
        """

    @abstractmethod
    def oracle(self, config: Any, weights: Weights) -> FamilyOracle:
        """Return the reference implementation over open weights."""

    def is_optional(self, name: str) -> bool:
        """Return True for a tensor that files may hold and no vector depends on."""
        del name
        return False

    def problems(self, config: Any, weights: Weights) -> list[str]:
        """Describe what is wrong with the tensors of a file beyond their names, shapes and dtypes; a line each."""
        del config, weights
        return []

    def common_names(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a `config.json` for other loaders, with the sizes under the names of transformers 5."""
        return dict(raw)
