"""Buffers are declared once: their positions, views and documentation follow from the declarations."""

import itertools

import numpy as np
import pytest

from fastlstm import ModelConfig
from fastlstm.cells import CELLS, Cell
from fastlstm.errors import ConfigError
from fastlstm.kernels import jit, workspace
from fastlstm.kernels.workspace import ALIGNMENT, BUFFERS, NETWORK, Buffer, Workspace, place, records

CONFIGS = [ModelConfig(13, cell, layers, hidden=21, embedding=7) for cell in CELLS for layers in (1, 2)]


def all_views(made):
    """The address range of every block of every buffer: ``(first, last, name)``."""
    for buffer in BUFFERS:
        if buffer.name == "a_h" and not made.plan.separate:
            continue  # another name of "a"
        for block in itertools.count():
            try:
                view = made.view(buffer.name, block)
            except IndexError:
                break
            yield view.ctypes.data, view.ctypes.data + view.nbytes, f"{buffer.name} {block}"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.cell}{c.layers}")
def test_no_two_buffers_overlap_and_each_begins_at_a_cache_line(config, dropout, training):
    made = Workspace(config, 11, 3, 2, training=training, dropout=dropout)
    views = sorted(all_views(made))
    assert all(first % ALIGNMENT == 0 for first, _, _ in views)
    for (_, last, name), (first, _, following) in itertools.pairwise(views):
        assert last <= first, f"{name} reaches into {following}"


def test_what_kernels_address_is_what_views_show():
    made = Workspace(CONFIGS[1], 11, 3, 1, training=True, dropout=True)
    for buffer in BUFFERS:
        if buffer.dtype == NETWORK:
            start = getattr(made.plan, buffer.name)
            view = made.view(buffer.name) if getattr(made.plan, f"{buffer.name}_size") else None
            assert view is None or np.shares_memory(view, made.buffers.arena[start : start + 1])
        else:
            assert np.shares_memory(made.view(buffer.name), getattr(made.buffers, buffer.name))


def test_two_dtypes_that_are_addressed_by_offset_fit_into_one_workspace():
    """As for bfloat16 weights with float32 sums: each dtype has an arena, and offsets count its elements."""
    declared = [
        Buffer("weights", "H, pitch(H), U", "", blocks="L", dtype="half"),
        Buffer("sums", "B, H", ""),
        Buffer("gradients", "H, H", "", dtype="half", training=True),
    ]
    sizes = {"H": 10, "U": 8, "B": 3, "L": 2}
    placed, totals = place(declared, sizes, {"half": 2, NETWORK: 4}, training=False)
    assert placed["weights"] == (0, 896, 2, (10, 11, 8))  # 880 elements, rounded up to cache lines of 32
    assert placed["sums"] == (0, 32, 1, (3, 10))  # 30 elements, rounded up to cache lines of 16
    assert totals == {"half": 2 * 896, NETWORK: 32}
    assert placed["gradients"].blocks == 0


@jit.kernel
def double_second_layer(plans, buffers):
    """What a kernel of two dtypes does: it addresses a block of one arena, and an element of the other."""
    plan = plans[0]
    for k in range(plan.halves_size):
        buffers.arena_uint16[plan.halves + plan.halves_size + k] *= 2
    buffers.arena[plan.by] = 5.0


@pytest.mark.parametrize("training", [True, False])
def test_kernels_address_buffers_of_another_dtype(training, monkeypatch):
    declared = (
        *BUFFERS,
        Buffer("halves", "H, U", "", blocks="L", dtype="uint16", addressed=True),
        Buffer("half_gradients", "H", "", dtype="uint16", addressed=True, training=True),
    )
    monkeypatch.setattr(workspace, "BUFFERS", declared)
    for name, record in zip(("Plan", "Buffers"), records(declared), strict=True):
        monkeypatch.setattr(workspace, name, record)
    made = Workspace(ModelConfig(13, layers=2, hidden=21, embedding=7), 4, 2, 1, training=training)
    for layer in (0, 1):
        made.view("halves", layer)[:] = 10 + layer
    double_second_layer(made.plans, made.buffers)
    assert set(made.view("halves", 0).flat) == {10}
    assert set(made.view("halves", 1).flat) == {22}
    assert made.view("by")[0] == 5.0


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
