"""The buffers of a network: each declared once in `BUFFERS`, all laid out and allocated together.

Buffers of one dtype are parts of one aligned array, an *arena*. Nothing else is allocated, and the system backs a large
arena with huge pages. Kernels address buffers of the network's dtype by their offsets in its arena (`Plan`), and get
the others as arrays (`Buffers`).

Operands of products are in an arena of their own if they are rounded to bfloat16. Otherwise they are in that of the
network's dtype, and a copy that would be rounded is the original itself.

`table` writes the declarations as the table of ``docs/kernels.md``.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.config import ModelConfig
from fastlstm.errors import ConfigError
from fastlstm.kernels import jit
from fastlstm.kernels.cells import Chosen
from fastlstm.kernels.host import vector_width
from fastlstm.kernels.sync import FIRST_TEAM
from fastlstm.kernels.tile.shape import ROWS, VECTORS, VECTORS_ONE_ROW, pitch
from fastlstm.params import decay_spans
from fastlstm.params import table as parameter_table

#: Alignment of every buffer, in bytes: a cache line, and the widest vector.
ALIGNMENT = 64

#: Groups of rows of ``da`` reduced at a time for the weight gradients: a strip of four vectors takes 32 KiB at most.
#: (64 to 384 are equally fast: the tiles read the strip as quickly from the second-level cache.)
REDUCTION = 128

#: Elements of a block of the gradient norm; the sums of squares of the blocks are added in order.
NORM_BLOCK = 4096

#: Maximum size in elements of a table of all symbols for sampling.
LARGEST_TABLE = 1 << 22

#: Lifetimes of a buffer: valid only within the call that writes it; from the forward pass to the end of the backward
#: pass, which may overwrite it; or kept from call to call.
CALL, FORWARD, KEPT = "call", "forward", "kept"

#: The dtype of the network, see `ModelConfig`, and that of operands of products: the same, or bfloat16.
NETWORK, OPERANDS = "network", "operands"

#: NumPy's dtype of arrays that hold bfloat16 numbers.
BFLOAT16 = "uint16"


class Buffer(NamedTuple):
    """The declaration of a buffer.

    Attributes
    ----------
    name : name of the buffer, and of its offset in `Plan` or its array in `Buffers`.
    shape : expressions in the names of `Dimensions`.
    meaning : what it holds.
    lifetime : `CALL`, `FORWARD` or `KEPT`.
    blocks : expression for the number of blocks of this shape, each aligned; for example, one for each layer.
    dtype : `NETWORK` or `OPERANDS`, whose buffers are addressed by offset, or the name of a NumPy dtype.
    training : whether only the backward pass needs it.
    rounds : the buffer of which it is a rounded copy, and which takes its place when nothing is rounded; empty: none.
    """

    name: str
    shape: str
    meaning: str
    lifetime: str = CALL
    blocks: str = "1"
    dtype: str = NETWORK
    training: bool = False
    rounds: str = ""

    @property
    def arena(self) -> str | None:
        """The field of `Buffers` with the arena in which kernels address it; ``None``: they get an array."""
        return {NETWORK: "arena", OPERANDS: "operands"}.get(self.dtype)


BUFFERS: tuple[Buffer, ...] = (
    Buffer("h", "T+1, B, Hp", "the state: h of all layers, then its other parts; entry 0 is carried in", FORWARD,
           "S*L"),
    Buffer("h_r", "T+1, B, Hp", "h rounded", FORWARD, "L", OPERANDS, rounds="h"),
    Buffer("a", "T, B, N", "gates", FORWARD, "L"),
    Buffer("a_h", "T, B, N", "the same for the recurrent parts, if there are separate gates; else it is ``a``",
           FORWARD, "L*separate"),
    Buffer("da", "T, B, N", "gradients of the pre-activations", CALL, "L", OPERANDS, training=True, rounds="a"),
    Buffer("da_h", "T, B, N", "the same for the recurrent parts, if there are separate gates; else it is ``da``",
           CALL, "L*separate", OPERANDS, training=True, rounds="a_h"),
    Buffer("wx", "N/U, pitch(X), U*P", "``Wx`` packed for `tile`: ``x @ Wx``", CALL, "L", OPERANDS),
    Buffer("wh", "N/U, pitch(H), U*P", "``Wh`` packed: ``h @ Wh``", CALL, "L", OPERANDS),
    Buffer("wxt", "X/U, pitch(N), U*P", "``Wx.T`` packed: ``da @ Wx.T``", FORWARD, "L", OPERANDS, training=True),
    Buffer("wht", "Hp/U, pitch(N), U*P", "``Wh.T`` packed: ``da @ Wh.T``", FORWARD, "L", OPERANDS, training=True),
    Buffer("ht", "Hp, Q", "h transposed, for weight gradients", CALL, "L", OPERANDS, training=True),
    Buffer("masked", "T*B, M", "what layers and output read after dropout", FORWARD, "(L+1)*dropout", OPERANDS),
    Buffer("masked_t", "M, Q", "its transpose", CALL, "(L+1)*dropout", OPERANDS, training=True),
    Buffer("dx", "T*B, Ep", "gradient with respect to the embeddings before dropout", CALL, "dropout", training=True),
    Buffer("factors", "M/64, 64", "what dropout multiplies the units of a row by", CALL, "workers*dropout"),
    Buffer("bias", "N", "biases in the order of the columns", CALL, "L"),
    Buffer("bias_h", "R*Hp", "biases of the recurrent parts of separate gates", CALL, "L"),
    Buffer("wy", "Vp/U, pitch(H), U*P", "the output layer's weights packed", CALL, dtype=OPERANDS),
    Buffer("by", "Vp", "its bias; -inf in the padding", CALL),
    Buffer("wyt", "Hp/U, pitch(Vp), U*P", "the transpose of its weights packed", FORWARD, "1", OPERANDS,
           training=True),
    Buffer("rows", "D, Ep", "embeddings of the distinct symbols of the step", FORWARD),
    Buffer("rows_r", "D, Ep", "the same rounded", FORWARD, "1", OPERANDS, rounds="rows"),
    Buffer("rows_t", "Ep, Dp", "the transpose of ``rows_r``", CALL, "1", OPERANDS, training=True),
    Buffer("drows", "D, Ep", "gradients of ``rows``", CALL, training=True),
    Buffer("table", "D, N", "``rows @ Wx + b`` of layer 0: the embedding folded into the input projection"),
    Buffer("dtable", "D, N", "sums of ``da`` over the positions of each symbol", CALL, training=True),
    Buffer("dtable_r", "D, N", "the same rounded", CALL, "1", OPERANDS, training=True, rounds="dtable"),
    Buffer("start", "Hp", "the state, part by part, with which a lane restarts", CALL, "S*L"),
    Buffer("p", "T, B, Vp", "logits, then probabilities", FORWARD),
    Buffer("dlogits", "T, B, Vp", "gradients of the logits", CALL, "1", OPERANDS, training=True, rounds="p"),
    Buffer("dy", "T, B, Hp", "gradient with respect to h of the current layer", CALL, training=True),
    Buffer("carry", "B, Hp", "the elementwise carried gradient: for the LSTM, that with respect to c", CALL,
           training=True),
    Buffer("scratch", "scratch_room", "a tile's sums; in backward those of a strip of weight gradients", CALL,
           "workers"),
    Buffer("strip", "REDUCTION, VECTORS*U*P", "rows of ``da``, ``dtable`` or ``dlogits`` packed for a weight gradient",
           CALL, "workers", OPERANDS, training=True),
    Buffer("nats", "T*B", "nats of each predicted symbol", FORWARD, dtype="float64"),
    Buffer("partial", "norm_blocks", "sums of the squared gradients of each block of the norm", CALL, dtype="float64"),
    Buffer("norm", "1", "the L2 norm of all gradients, for the update", CALL, dtype="float64"),
    Buffer("broken", "workers", "0, or NaN where a worker's part of an update is not finite; then 0: their sum", CALL,
           dtype="float64"),
    Buffer("symbols", "D", "the distinct symbols of the step", FORWARD, dtype="int32"),
    Buffer("rank", "V", "a symbol's row in the table, or -1", KEPT, dtype="int32"),
    Buffer("slot", "T*B", "the table row of each symbol read", FORWARD, dtype="int32"),
    Buffer("counts", "2", "0: D; 1: whether logits were not finite", FORWARD, dtype="int64"),
    Buffer("reading", "3", "whether: 0: lanes restart; 1: ranks are wanted; 2: probabilities are not wanted", CALL,
           dtype="int64"),
    Buffer("restarts", "T*B", "whether a lane restarts after it has read a symbol", CALL, dtype="uint8"),
    Buffer("ranks", "T*B", "how many symbols are more probable than the predicted one", CALL, dtype="int32"),
    Buffer("places", "L+2, 3", "starts of W, b and b_h in the flat parameters: embedding, layers, output", KEPT,
           dtype="int64"),
    Buffer("spans", "spans, 3", "start, stop and whether weight decay acts, for each span of the flat parameters", KEPT,
           dtype="int64"),
    Buffer("masks", "L+5", "of dropout: key (2), step, whether time counts; thresholds of layers and output", FORWARD,
           dtype="int64"),
    Buffer("sync", "FIRST_TEAM + 16*workers", "counters of barriers and tasks", KEPT, dtype="int64"),
)  # fmt: skip


class Dimensions(NamedTuple):
    """The sizes in the shapes of buffers (see `fastlstm.config`; U is the vector width).

    Attributes
    ----------
    P : terms of a multiply-add of operands: 2 if they are rounded to bfloat16, else 1.
    Hp, Vp, Ep, X : H, V and E rounded up to whole vectors, and the larger of Ep and (above layer 0) Hp.
    M : the larger of Ep and Hp, as an odd number of vectors.
    Q : more than (T+1)*B positions; a row of that length is an odd number of vectors. Dp : the same for D symbols.
    N : columns of a layer's pre-activations, ``G * Hp``: for each group of U units, one vector for each gate.
    D : rows of the table of symbols; all_symbols : 1 when it holds all V, symbol v in row v.
    separate : 1 when there are separate gates. dropout : 1 when there is dropout.
    scratch_room : elements of a worker's scratch. norm_blocks : blocks of the gradients in the norm.
    spans : spans of the parameters that weight decay acts on, or spares.
    """

    T: int
    B: int
    L: int
    V: int
    E: int
    H: int
    G: int
    S: int
    R: int
    U: int
    P: int
    Hp: int
    Vp: int
    Ep: int
    X: int
    M: int
    Q: int
    Dp: int
    N: int
    D: int
    all_symbols: int
    separate: int
    dropout: int
    workers: int
    scratch_room: int
    norm_blocks: int
    spans: int


def dimensions(
    config: ModelConfig, seq_len: int, batch: int, workers: int, *, training: bool, dropout: bool = False,
    bf16: bool = False,
) -> Dimensions:  # fmt: skip
    """The sizes of a network's buffers."""
    structure = config.structure
    T, B, L, V, E, H = seq_len, batch, config.layers, config.vocab_size, config.embedding, config.hidden
    G, R = len(structure.gates), len(structure.separate)
    if G > VECTORS:
        raise ConfigError(
            f"the cell {config.cell} has {G} gates, and the kernels take at most {VECTORS}: use the backend reference"
        )
    U = vector_width(np.dtype(config.dtype).itemsize)
    Hp, Vp, Ep = (-(-n // U) * U for n in (H, V, E))
    N = G * Hp
    all_symbols = not training and V * N <= LARGEST_TABLE
    D = V if all_symbols else min(V, T * B)
    # After a tile's sums: those of a strip of weight gradients, or the gates that no backward pass needs.
    after_sums = (max(E, H) + H + 2 if training else 1) * VECTORS * U
    return Dimensions(
        T=T, B=B, L=L, V=V, E=E, H=H, G=G, S=len(structure.state), R=R, U=U, P=2 if bf16 else 1, Hp=Hp, Vp=Vp, Ep=Ep,
        X=max(Ep, Hp if L > 1 else 0), M=(max(Ep, Hp) // U | 1) * U, Q=((T + 1) * B // U + 1 | 1) * U,
        Dp=(D // U + 1 | 1) * U, N=N, D=D, all_symbols=int(all_symbols), separate=int(R > 0),
        dropout=int(dropout), workers=workers, scratch_room=ROWS * VECTORS_ONE_ROW * U + after_sums,
        norm_blocks=-(-config.parameter_count // NORM_BLOCK), spans=len(decay_spans(config)),
    )  # fmt: skip


class Placed(NamedTuple):
    """Position of a buffer in elements of its arena: ``blocks`` of ``shape``, ``size`` apart, from ``start`` on."""

    start: int
    size: int
    blocks: int
    shape: tuple[int, ...]


def place(
    buffers: Sequence[Buffer], sizes: Mapping[str, int], items: Mapping[str, int], *, training: bool
) -> tuple[dict[str, Placed], dict[str, int]]:
    """Lay buffers out, those of a dtype one after another in its arena.

    Parameters
    ----------
    buffers : the declarations.
    sizes : values of the names in their expressions.
    items : bytes per element of each dtype.
    training : whether buffers of the backward pass are needed; else their size is 0.

    Returns
    -------
    placed : the position of each buffer, by name.
    totals : elements of each dtype's arena.
    """
    placed: dict[str, Placed] = {}
    totals = dict.fromkeys(items, 0)
    for buffer in buffers:
        item = items[buffer.dtype]
        shape = _values(buffer.shape, sizes)
        (blocks,) = _values(buffer.blocks, sizes)
        needed = training or not buffer.training
        size = -(-math.prod(shape) * needed * item // ALIGNMENT) * ALIGNMENT // item
        placed[buffer.name] = Placed(totals[buffer.dtype], size, blocks if needed else 0, shape)
        totals[buffer.dtype] += blocks * size
    return placed, totals


def _values(expressions: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Values of the expressions of a declaration; ``/`` rounds up."""
    terms = sizes["P"]
    known = {
        **sizes, "pitch": lambda depth: pitch(depth, terms), "ROWS": ROWS, "VECTORS": VECTORS, "REDUCTION": REDUCTION,
        "FIRST_TEAM": FIRST_TEAM,
    }  # fmt: skip
    quotients = (expression.partition("/") for expression in expressions.split(","))
    return tuple(-(-_value(above, known) // _value(below or "1", known)) for above, _, below in quotients)


def _value(expression: str, known: Mapping[str, Any]) -> int:
    value: int = eval(expression.strip(), {}, dict(known))
    return value


def _record(name: str, fields: Sequence[str]) -> Any:
    """A named tuple whose fields are derived from the declarations, which a class statement cannot do."""
    make: Any = collections.namedtuple
    return make(name, fields, module=__name__)


def records(buffers: Sequence[Buffer]) -> tuple[Any, Any]:
    """The types `Plan` and `Buffers` that follow from declarations."""
    addressed = [b for b in buffers if b.arena]
    arenas = dict.fromkeys(["arena", *(b.arena for b in addressed if b.arena)])
    plan = [*Dimensions._fields, *(b.name + end for b in addressed for end in ("", "_size"))]
    return _record("Plan", plan), _record("Buffers", ["cell", *arenas, *(b.name for b in buffers if not b.arena)])


#: `Plan`: the sizes and, for each addressed buffer, its offset ``NAME`` and the distance between its blocks,
#: ``NAME_size``: all that kernels need to address an arena. Kernels get it as a NumPy record of the same fields: one
#: pointer, where a tuple would be sixty arguments of every function. Entry points get the record inside an array of one
#: element, which numba unpacks faster.
#:
#: `Buffers`: the data of kernels besides parameters and gradients: the cell, the arenas, and the other buffers.
Plan, Buffers = records(BUFFERS)


class Workspace:
    """The buffers of a network, allocated.

    Parameters
    ----------
    config, seq_len, batch, workers : the configuration, T, B and the number of workers.
    training : whether there will be backward passes. Without them, their buffers are omitted, and the table holds all
        symbols unless it would be too large.
    dropout : whether there will be passes with dropout.
    bf16 : whether operands of products are rounded to bfloat16.

    Attributes
    ----------
    plan : `Plan`, sizes and offsets. plans : the same for kernels.
    buffers : `Buffers`.
    """

    def __init__(
        self, config: ModelConfig, seq_len: int, batch: int, workers: int, *, training: bool, dropout: bool = False,
        bf16: bool = False,
    ) -> None:  # fmt: skip
        sizes = dimensions(config, seq_len, batch, workers, training=training, dropout=dropout, bf16=bf16)._asdict()
        known = {NETWORK: config.dtype, OPERANDS: BFLOAT16 if bf16 else config.dtype}
        dtypes = {buffer.dtype: known.get(buffer.dtype, buffer.dtype) for buffer in BUFFERS}
        items = {name: np.dtype(dtype).itemsize for name, dtype in dtypes.items()}
        self._where = {b.name: NETWORK if b.dtype == OPERANDS and not bf16 else b.dtype for b in BUFFERS}
        allocated = [b._replace(dtype=self._where[b.name]) for b in BUFFERS if bf16 or not b.rounds]
        self._placed, totals = place(allocated, sizes, items, training=training)
        self._share(rounded=bf16, separate=bool(sizes["separate"]))
        self._arenas = {name: aligned_zeros(totals[name], dtype) for name, dtype in dtypes.items()}
        if not bf16:
            self._arenas[OPERANDS] = self._arenas[NETWORK]
        offsets = [number for b in BUFFERS if b.arena for number in self._placed[b.name][:2]]
        self.plan = Plan(*sizes.values(), *offsets)
        self.plans = _as_record(self.plan)
        arenas = {b.arena: self._arenas[b.dtype] for b in BUFFERS if b.arena}
        arrays = {b.name: self.view(b.name) for b in BUFFERS if not b.arena}
        self.buffers = Buffers(cell=Chosen(config.cell), **arenas, **arrays)
        self._initialise(config)

    def _share(self, *, rounded: bool, separate: bool) -> None:
        """Give buffers that are not allocated the place of those that stand for them."""
        if not separate:
            self._placed["a_h"] = self._placed["a"]
        if not rounded:
            self._placed |= {b.name: self._placed[b.rounds] for b in BUFFERS if b.rounds}
        elif not separate:
            self._placed["da_h"] = self._placed["da"]

    def view(self, name: str, block: int = 0) -> NDArray[Any]:
        """A block of a buffer as an array of its shape; if the buffer has a block for each layer, that of a layer."""
        start, size, blocks, shape = self._placed[name]
        if not 0 <= block < blocks:
            raise IndexError(f"the buffer {name} has {blocks} blocks, so there is no block {block}")
        at = start + block * size
        return self._arenas[self._where[name]][at : at + math.prod(shape)].reshape(shape)

    def _initialise(self, config: ModelConfig) -> None:
        buffers, starts = self.buffers, {entry.name: entry.start for entry in parameter_table(config)}
        buffers.symbols[:] = np.arange(self.plan.D)
        buffers.rank[:] = -1
        buffers.counts[0] = self.plan.D
        buffers.places[0, 0] = starts["embedding"]
        for layer in range(config.layers):
            tensors = config.structure.tensors(config.inputs(layer), config.hidden)
            for n, name in enumerate(tensors):
                buffers.places[layer + 1, n] = starts[f"layers.{layer}.{name}"]
        buffers.places[-1, :2] = starts["output.W"], starts["output.b"]
        buffers.spans[...] = decay_spans(config)


def _as_record(plan: Any) -> Any:
    """An array of one record with the fields of ``plan``."""
    if jit.DISABLED:
        return (plan,)
    return np.array([tuple(plan)], dtype=[(name, np.int64) for name in plan._fields])


def aligned_zeros(count: int, dtype: str) -> NDArray[Any]:
    """A zeroed array that is aligned to a cache line (NumPy guarantees only 16 bytes)."""
    item = np.dtype(dtype).itemsize
    raw = np.zeros(count + ALIGNMENT // item, dtype)
    skip = -raw.ctypes.data % ALIGNMENT // item
    return raw[skip : skip + count]


def table() -> str:
    """The declarations as a Markdown table."""
    lines = ["| buffer | shape | blocks | dtype | lifetime | what it holds |", "|---|---|---|---|---|---|"]
    for b in BUFFERS:
        lifetime = f"{b.lifetime}, training" if b.training else b.lifetime
        meaning = b.meaning.replace("``", "`")
        lines.append(f"| `{b.name}` | `({b.shape})` | `{b.blocks}` | {b.dtype} | {lifetime} | {meaning} |")
    return "\n".join(lines)
