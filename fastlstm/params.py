"""The parameter table: every parameter's name, shape and initialisation, declared once.

All parameters of a model are stored in one flat array, in the order of the table; `Parameters` makes
named views of it. Gradients and optimizer slots have the same layout.

============  ============  =====================================================================
name          shape         meaning
============  ============  =====================================================================
embedding     (V, E)        row v is the vector of symbol v
layers.l.W    (X+H, G*H)    the assignment's concatenated form: rows multiply ``[x; h]``, x first; columns are
                            blocks of H, one for each gate, in the order of `fastlstm.cells.Cell.gates`
layers.l.b    (G*H,)        the gates' biases, in the same order
layers.l.b_h  (R*H,)        biases of the recurrent parts of separate gates (GRU: of n), if the cell has any
output.W      (H, V)        logits are ``h @ output.W + output.b``
output.b      (V,)
============  ============  =====================================================================
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastlstm.config import DType, ModelConfig

FloatArray = NDArray[np.floating]


class Entry(NamedTuple):
    """One parameter: its name, shape and place ``[start, stop)`` in the flat array.

    ``decays`` says whether weight decay acts on it: on the weight matrices of the layers and of the output. It spares
    biases, and the embeddings, whose rows have no gradient unless their symbols occur.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    stop: int
    decays: bool


def table(config: ModelConfig) -> tuple[Entry, ...]:
    """The parameter table of a configuration, in storage order."""
    embedding, *output = config.outer_tensors.items()
    shapes = [embedding]
    for layer in range(config.layers):
        tensors = config.structure.tensors(config.inputs(layer), config.hidden)
        shapes += [(f"layers.{layer}.{name}", shape) for name, shape in tensors.items()]
    shapes += output
    entries, start = [], 0
    for name, shape in shapes:
        decays = len(shape) == 2 and name != "embedding"
        entries.append(Entry(name, shape, start, start + math.prod(shape), decays))
        start += math.prod(shape)
    return tuple(entries)


def decay_spans(config: ModelConfig) -> list[tuple[int, int, bool]]:
    """The flat array in spans ``(start, stop, decays)``, each of as many neighbouring parameters as possible."""
    groups = itertools.groupby(table(config), key=lambda entry: entry.decays)
    spans = [(decays, list(entries)) for decays, entries in groups]
    return [(entries[0].start, entries[-1].stop, decays) for decays, entries in spans]


class Parameters(Mapping[str, FloatArray]):
    """Named views of one flat array, which holds all values.

    ``parameters["layers.0.W"]`` is a view that can be read and written in place;
    ``parameters["layers.0.W"] = value`` copies ``value`` into it.

    Parameters
    ----------
    config : the configuration whose table applies.
    flat : array of ``config.parameter_count`` elements to view; zeros of the configuration's dtype if omitted.

    Attributes
    ----------
    flat : (parameters,) all values, C-contiguous.

    Raises
    ------
    ValueError
        When ``flat`` has the wrong shape or is not contiguous.
    """

    def __init__(self, config: ModelConfig, flat: FloatArray | None = None) -> None:
        self.config = config
        count = config.parameter_count
        self.flat: FloatArray = np.zeros(count, config.dtype) if flat is None else flat
        if self.flat.shape != (count,) or not self.flat.flags.c_contiguous:
            raise ValueError(
                f"flat must be a C-contiguous array of {count} parameters, not one of shape {self.flat.shape}"
                f" and strides {self.flat.strides}"
            )
        self._entries = {entry.name: entry for entry in table(config)}

    def __getitem__(self, name: str) -> FloatArray:
        # A new view each time: after a copy, a stored view would still refer to the old `flat`.
        entry = self._entries[name]
        return self.flat[entry.start : entry.stop].reshape(entry.shape)

    def __setitem__(self, name: str, value: FloatArray) -> None:
        self[name][...] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def astype(self, dtype: DType, *, copy: bool = True) -> Parameters:
        """The same parameters in a dtype, rounded to nearest (beyond its range to infinity).

        Without ``copy``, they are themselves returned if they have that dtype.
        """
        if dtype == self.config.dtype and not copy:
            return self
        with np.errstate(over="ignore"):
            return Parameters(dataclasses.replace(self.config, dtype=dtype), self.flat.astype(dtype))

    def __repr__(self) -> str:
        return f"<Parameters: {self.flat.size:,} of {self.flat.dtype} in {len(self)} arrays>"

    def __reduce__(self) -> tuple[Any, ...]:
        """For copies and pickles: ``copy.copy`` shares ``flat``, ``copy.deepcopy`` and ``pickle`` do not."""
        return _restored, (self.config, self.flat)


def _restored(config: ModelConfig, flat: FloatArray) -> Parameters:
    """Writable parameters: out-of-band buffers and memory maps arrive read-only, and are copied."""
    return Parameters(config, flat if flat.flags.writeable else np.array(flat))


class NormalNumbers(Protocol):
    """A source of random numbers from the standard normal distribution, such as NumPy's generators."""

    def standard_normal(self, size: tuple[int, ...], /) -> NDArray[np.float64]: ...


def initialise(config: ModelConfig, rng: NormalNumbers) -> Parameters:
    """New parameters: weights drawn from normal distributions, biases zero except those of forget gates.

    Weights are drawn in float64 in the table's order, so that both dtypes start from the same point.
    """
    parameters = Parameters(config)
    for name, view in parameters.items():
        if view.ndim == 2:
            view[...] = _weight_std(config, name, view.shape[0]) * rng.standard_normal(view.shape)
    structure, H = config.structure, config.hidden
    if structure.forget_gate is not None:
        forget = structure.gates.index(structure.forget_gate)
        for layer in range(config.layers):
            parameters[f"layers.{layer}.b"][forget * H : (forget + 1) * H] = config.forget_bias
    return parameters


def _weight_std(config: ModelConfig, name: str, rows: int) -> float:
    std = config.weight_std
    if name == "output.W" and config.output_std is not None:
        std = config.output_std
    if std is not None:
        return std
    return 1.0 if name == "embedding" else 1.0 / math.sqrt(rows)
