"""Where every buffer of a step lies: one arena, laid out once.

All floating-point buffers are parts of a single aligned array, the *arena*, and kernels address them by the
offsets in `Plan`. Allocating it is the only allocation; a large arena gets huge pages from the system.

Layouts (U is the vector width, ``Hp, Vp`` are H and V rounded up to whole vectors, ``N = G * Hp``):

===========  =====================  ==========================================================================
h, c         (T+1, B, Hp) a layer   entry 0 is the carried-in state (RNN: no c)
a            (T, B, N) a layer      gates of an LSTM, then (after backward) their gradients ``da``. Columns are in
                                    vectors of U: for each group of U units its i, f, o, g. (RNN: the units.)
wx, wh       (N/U, X|H, U) a layer  weights packed for `tile`: ``x @ Wx`` and ``h @ Wh``
wxt, wht     (X|H/U, N, U) a layer  their transposes, packed for ``da @ W.T``
wy, wyt      (Vp/U, H, U),          the output layer's
             (Hp/U, Vp, U)
bias, by     (N) a layer, (Vp)      biases, in the order of the columns; by is -inf in the padding
rows         (D, E)                 embeddings of the D distinct symbols of the step
table        (D, N)                 ``rows @ Wx + b`` of layer 0: the embedding folded into the input projection
dtable       (D, N)                 sum of ``da`` over the places where each symbol stands
drows        (D, E up to U)         gradients of ``rows``
p            (T, B, Vp)             logits, then probabilities, then their gradients
dy           (T, B, Hp)             gradient with respect to h of the layer at hand
dc           (B, Hp)                gradient with respect to c carried back in time
ht           (H/R, (T+1)*B, R)      h transposed in strips of R rows, for the weight gradients (a layer)
scratch      a worker               a tile's sums; in backward the sums and the packed strip of a weight gradient
===========  =====================  ==========================================================================

In packed weights the middle dimension is rounded up to an odd number (`fastlstm.kernels.tile.pitch`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastlstm.config import ModelConfig
from fastlstm.kernels import jit
from fastlstm.kernels.host import vector_unit
from fastlstm.kernels.sync import FIRST_TEAM
from fastlstm.kernels.tile import ROWS, VECTORS, VECTORS_ONE_ROW, pitch
from fastlstm.params import table as parameter_table

#: Alignment of every buffer, in bytes: a cache line, and the widest vector.
ALIGNMENT = 64

#: Rows of ``da`` reduced at a time for the weight gradients: a strip of four vectors takes 32 KiB at most. (64 to 384
#: rows are equally fast: the tiles read the strip as quickly from the second-level cache.)
REDUCTION = 128

#: Largest table of all symbols (elements) worth keeping for sampling.
LARGEST_TABLE = 1 << 22


class Plan(NamedTuple):
    """Dimensions, and offsets into the arena in elements; ``x_size`` is the distance from layer to layer.

    Kernels get it as a NumPy record of the same fields: one pointer, where a tuple would be forty arguments
    of every function. A record reaches an entry point inside an array of one, which is quicker to take apart.
    """

    T: int
    B: int
    L: int
    V: int
    E: int
    H: int
    G: int
    Hp: int
    Vp: int
    N: int
    all_symbols: int  # 1: the table holds all V symbols, symbol v in row v
    h: int
    h_size: int
    c: int
    a: int
    a_size: int
    wx: int
    wx_size: int
    wh: int
    wh_size: int
    wxt: int
    wxt_size: int
    wht: int
    wht_size: int
    bias: int
    wy: int
    by: int
    wyt: int
    rows: int
    drows: int
    table: int
    dtable: int
    p: int
    dy: int
    dc: int
    ht: int
    ht_size: int
    scratch: int
    scratch_size: int

    def as_array(self) -> Any:
        """An array of one record with the same fields."""
        if jit.DISABLED:
            return (self,)
        return np.array([tuple(self)], dtype=[(name, np.int64) for name in self._fields])


class Buffers(NamedTuple):
    """The arrays kernels work on beside parameters and gradients.

    Attributes
    ----------
    arena : the floating-point buffers of `Plan`.
    nats : (T*B,) float64, nats of each predicted symbol.
    partial : float64, partial sums of the squared gradients.
    symbols : (D,) int32, the distinct symbols of the step; rank (V,) int32, a symbol's row in the table, or -1.
    slot : (T*B,) int32, the table row of each symbol read.
    counts : int64; [0] is D, [1] whether logits were no finite numbers.
    places : (L+2, 2) int64: start of weights and biases in the flat parameters: embedding, layers, output.
    sync : int64, counters of barriers and tasks.
    """

    arena: Any
    nats: Any
    partial: Any
    symbols: Any
    rank: Any
    slot: Any
    counts: Any
    places: Any
    sync: Any


def aligned_zeros(count: int, dtype: str) -> np.ndarray:
    """A zeroed array on a cache line's boundary (NumPy promises 16 bytes)."""
    item = np.dtype(dtype).itemsize
    raw = np.zeros(count + ALIGNMENT // item, dtype)
    skip = -raw.ctypes.data % ALIGNMENT // item
    return raw[skip : skip + count]


def make(config: ModelConfig, seq_len: int, batch: int, workers: int, *, training: bool) -> tuple[Plan, Buffers]:
    """Lay out and allocate the buffers of a network.

    ``training`` false leaves out all that only the backward pass needs, and keeps a table of all symbols.
    """
    T, B, L, V, E, H, G = (
        seq_len, batch, config.layers, config.vocab_size, config.embedding, config.hidden, config.gates
    )  # fmt: skip
    item = np.dtype(config.dtype).itemsize
    U = vector_unit().lanes(item)
    Hp, Vp, Ep = (-(-n // U) * U for n in (H, V, E))
    N, X = G * Hp, max(Ep, Hp if L > 1 else 0)
    all_symbols = not training and V * N <= LARGEST_TABLE
    D = V if all_symbols else min(V, T * B)
    backward = 1 if training else 0
    size = 0

    def place(count: int) -> int:
        nonlocal size
        start = size
        size += -(-count * item // ALIGNMENT) * ALIGNMENT // item
        return start

    def layers(count: int) -> tuple[int, int]:
        start = place(0)
        for _ in range(L):
            place(count)
        return start, (size - start) // L

    h, h_size = layers((T + 1) * B * Hp)
    c, _ = layers((T + 1) * B * Hp if G == 4 else 0)
    a, a_size = layers(T * B * N)
    wx, wx_size = layers(N * pitch(X))
    wh, wh_size = layers(N * pitch(H))
    wxt, wxt_size = layers(backward * X * pitch(N))
    wht, wht_size = layers(backward * Hp * pitch(N))
    strips = -(-H // ROWS)
    ht, ht_size = layers(backward * strips * (T + 1) * B * ROWS)
    # A worker's scratch: sums of one strip of a weight gradient, the strip of da, and a tile.
    strip = VECTORS * U
    scratch_size = (
        backward * ((max(E, H) + H + 1) * strip + REDUCTION * strip) + ROWS * VECTORS_ONE_ROW * U
    )  # fmt: skip
    scratch_size = -(-scratch_size * item // ALIGNMENT) * ALIGNMENT // item
    plan = Plan(
        T=T, B=B, L=L, V=V, E=E, H=H, G=G, Hp=Hp, Vp=Vp, N=N, all_symbols=int(all_symbols),
        h=h, h_size=h_size, c=c, a=a, a_size=a_size, wx=wx, wx_size=wx_size, wh=wh, wh_size=wh_size,
        wxt=wxt, wxt_size=wxt_size, wht=wht, wht_size=wht_size, ht=ht, ht_size=ht_size,
        bias=place(L * N), wy=place(Vp * pitch(H)), by=place(Vp), wyt=place(backward * Hp * pitch(Vp)),
        rows=place(D * E), drows=place(backward * D * Ep), table=place(D * N), dtable=place(backward * D * N),
        p=place(T * B * Vp), dy=place(backward * T * B * Hp), dc=place(backward * B * Hp),
        scratch=place(workers * scratch_size), scratch_size=scratch_size,
    )  # fmt: skip
    entries = {entry.name: entry.start for entry in parameter_table(config)}
    places = [(entries["embedding"], 0)]
    places += [(entries[f"layers.{layer}.W"], entries[f"layers.{layer}.b"]) for layer in range(L)]
    places.append((entries["output.W"], entries["output.b"]))
    buffers = Buffers(
        arena=aligned_zeros(size, config.dtype),
        nats=np.zeros(T * B),
        partial=np.zeros(-(-parameter_table(config)[-1].stop // NORM_BLOCK)),
        symbols=np.arange(D, dtype=np.int32),
        rank=np.full(V, -1, np.int32),
        slot=np.zeros(T * B, np.int32),
        counts=np.array([D, 0], np.int64),
        places=np.array(places, np.int64),
        sync=np.zeros(FIRST_TEAM + 16 * workers, np.int64),
    )
    return plan, buffers


#: Gradient elements whose squares are summed together; the sums of blocks are added in order.
NORM_BLOCK = 4096
