"""Buffers are declared once: their positions, views and documentation follow from the declarations."""

import itertools

import numpy as np
import pytest

from fastlstm import ModelConfig
from fastlstm.cells import CELLS, Cell
from fastlstm.errors import ConfigError
from fastlstm.kernels import jit, workspace
from fastlstm.kernels.host import has_bf16
from fastlstm.kernels.simd.memory import round_vectors
from fastlstm.kernels.simd.vector import width
from fastlstm.kernels.workspace import ALIGNMENT, BUFFERS, NETWORK, Buffer, Workspace, place

CONFIGS = [ModelConfig(13, cell, layers, hidden=21, embedding=7) for cell in CELLS for layers in (1, 2)]


def all_views(made):
    """The address range of every block of every buffer: ``(first, last, name)``."""
    for buffer in BUFFERS:
        if (not made.plan.separate and buffer.name in ("a_h", "da_h")) or (made.plan.P == 1 and buffer.rounds):
            continue  # another name of "a" or "da", or of what it would round
        for block in itertools.count():
            try:
                view = made.view(buffer.name, block)
            except IndexError:
                break
            yield view.ctypes.data, view.ctypes.data + view.nbytes, f"{buffer.name} {block}"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.cell}{c.layers}")
def test_no_two_buffers_overlap_and_each_begins_at_a_cache_line(config, bf16, dropout, training):
    made = Workspace(config, 11, 3, 2, training=training, dropout=dropout, bf16=bf16)
    views = sorted(all_views(made))
    assert all(first % ALIGNMENT == 0 for first, _, _ in views)
    for (_, last, name), (first, _, following) in itertools.pairwise(views):
        assert last <= first, f"{name} reaches into {following}"


@pytest.mark.parametrize("bf16", [True, False])
def test_what_kernels_address_is_what_views_show(bf16):
    made = Workspace(CONFIGS[1], 11, 3, 1, training=True, dropout=True, bf16=bf16)
    for buffer in BUFFERS:
        if buffer.arena:
            start = getattr(made.plan, buffer.name)
            view = made.view(buffer.name) if getattr(made.plan, f"{buffer.name}_size") else None
            assert view is None or np.shares_memory(view, getattr(made.buffers, buffer.arena)[start : start + 1])
        else:
            assert np.shares_memory(made.view(buffer.name), getattr(made.buffers, buffer.name))


def test_each_dtype_has_an_arena_and_offsets_count_its_elements():
    declared = [
        Buffer("weights", "H, pitch(H), U", "", blocks="L", dtype="half"),
        Buffer("sums", "B, H", ""),
        Buffer("gradients", "H, H", "", dtype="half", training=True),
    ]
    sizes = {"H": 10, "U": 8, "B": 3, "L": 2, "P": 1}
    placed, totals = place(declared, sizes, {"half": 2, NETWORK: 4}, training=False)
    assert placed["weights"] == (0, 896, 2, (10, 11, 8))  # 880 elements, rounded up to cache lines of 32
    assert placed["sums"] == (0, 32, 1, (3, 10))  # 30 elements, rounded up to cache lines of 16
    assert totals == {"half": 2 * 896, NETWORK: 32}
    assert placed["gradients"].blocks == 0


@jit.kernel
def round_logits(plans, buffers):
    """What kernels do with two dtypes: they address a buffer of one arena, and its rounded copy in the other."""
    plan = plans[0]
    round_vectors(buffers.arena, plan.p, buffers.operands, plan.dlogits, plan.Vp // width(buffers.arena))


@pytest.mark.skipif(not has_bf16(), reason="this processor does not round to bfloat16")
def test_kernels_address_a_rounded_copy_in_an_arena_of_its_own():
    made = Workspace(CONFIGS[0], 4, 2, 1, training=True, bf16=True)
    made.view("p")[0, 0, :3] = 1.0, 1.0 + 2.0**-7, 1.0 + 2.0**-9  # the last one is not a bfloat16 number
    round_logits(made.plans, made.buffers)
    assert made.view("dlogits")[0, 0, :4].tolist() == [0x3F80, 0x3F81, 0x3F80, 0]


def test_without_rounding_a_copy_is_the_original():
    made = Workspace(CONFIGS[0], 4, 2, 1, training=True)
    assert all(made.view(b.name).ctypes.data == made.view(b.rounds).ctypes.data for b in BUFFERS if b.rounds)
    assert made.buffers.operands is made.buffers.arena


def test_recurrent_parts_have_separate_buffers_only_with_separate_gates():
    lstm, gru = (Workspace(CONFIGS[n], 4, 2, 1, training=True) for n in (0, 4))
    assert lstm.plan.a_h == lstm.plan.a
    assert np.shares_memory(lstm.view("a_h"), lstm.view("a"))
    assert not np.shares_memory(gru.view("a_h"), gru.view("a"))


def test_buffers_of_the_backward_pass_do_not_exist_without_training():
    made = Workspace(CONFIGS[0], 4, 2, 1, training=False)
    with pytest.raises(IndexError, match="the buffer dy has 0 blocks"):
        made.view("dy")


def test_a_cell_with_more_gates_than_a_tile_has_vectors_is_refused(monkeypatch):
    monkeypatch.setitem(CELLS, "lstm", Cell(gates=tuple("ifogq"), state=("h", "c")))
    with pytest.raises(ConfigError, match=r"^the cell lstm has 5 gates, and the kernels take at most 4: use the "):
        Workspace(CONFIGS[0], 4, 2, 1, training=True)


def test_every_buffer_is_in_the_table():
    table = workspace.table()
    assert all(f"| `{buffer.name}` | `({buffer.shape})` |" in table for buffer in BUFFERS)
