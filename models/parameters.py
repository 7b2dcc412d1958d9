"""Parameters of a network, and the tensors of a checkpoint that each is made of.

Parameters have one set of names in all families, those of `moembed.models.roles`. Files have the names of their authors, and may
hold in several tensors, or in a part of one, what is one parameter here.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from moembed.models.roles import Kind, Role

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """Rows of a tensor in a file.

    Attributes:
        name: name of the tensor in the file.
        shape: shape of the whole tensor.
        first: first row.
        last: row behind the last one; None for the end of the tensor.
    """

    name: str
    shape: Shape
    first: int = 0
    last: int | None = None

    @property
    def rows(self) -> slice:
        """The rows."""
        return slice(self.first, self.last)


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        role: its role, which gives its name.
        shape: its shape.
        parts: what it is made of, one under the other; none for zeros.
        added: a tensor whose first row is added to each of its rows, or None.
    """

    role: Role
    shape: Shape
    parts: tuple[Part, ...]
    added: Part | None = None

    @property
    def name(self) -> str:
        """Name of the parameter in the network, and of the initializer in its graph."""
        return self.role.name

    @property
    def is_whole(self) -> bool:
        """True if it is one tensor of the file, or rows of one, as they are."""
        return len(self.parts) == 1 and self.added is None

    def assemble(self, read: Callable[[str], Any], stack: Callable[[Sequence[Any]], Any]) -> Any:
        """Make the parameter.

        Args:
            read: name of a tensor in the file -> the tensor, in float32.
            stack: puts tensors one under the other.
        """
        if not self.parts:
            raise ValueError(f"{self.name} is made of nothing: it is zeros")
        found = [read(part.name)[part.rows] for part in self.parts]
        value = found[0] if len(found) == 1 else stack(found)
        return value if self.added is None else value + read(self.added.name)[0]


def plain(role: Role, shape: Shape) -> Parameter:
    """Return a parameter that a file holds as it is, under the same name."""
    return Parameter(role, shape, (Part(role.name, shape),))


def zeros(role: Role, shape: Shape) -> Parameter:
    """Return a parameter of zeros, in the place of a bias that a network has not."""
    return Parameter(role, shape, ())


def pair(weight: Kind, bias: Kind, layer: int | None, shape: Shape, *names: str) -> list[Parameter]:
    """Return the parameters weight and bias that are made of the tensors of some modules, one under the other.

    Args:
        weight: kind of the weight.
        bias: kind of the bias.
        layer: their layer, or None.
        shape: shape of the weight of one module.
        names: names of the modules.
    """
    whole = (len(names) * shape[0], *shape[1:])
    weights = tuple(Part(f"{name}.weight", shape) for name in names)
    biases = tuple(Part(f"{name}.bias", shape[:1]) for name in names)
    return [Parameter(Role(weight, layer), whole, weights), Parameter(Role(bias, layer), whole[:1], biases)]


def stored_tensors(parameters: Iterable[Parameter]) -> dict[str, Shape]:
    """Return name and shape of every tensor of a file that parameters are made of, in their order."""
    parts = (part for one in parameters for part in (*one.parts, *([one.added] if one.added else [])))
    return {part.name: part.shape for part in parts}
