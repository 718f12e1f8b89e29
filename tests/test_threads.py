"""The number of workers follows from the cores that the process may use, and small networks use fewer."""

import os
from pathlib import Path

import numpy as np
import pytest

from fastlstm import ModelConfig, threads
from fastlstm.drawing import Drawing
from fastlstm.errors import ConfigError, FastlstmError
from fastlstm.kernels import recurrent
from fastlstm.kernels.network import FastNetwork
from fastlstm.optimizers import UpdateRule
from fastlstm.params import Parameters
from fastlstm.reference.network import ReferenceNetwork


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    monkeypatch.delenv("FASTLSTM_THREADS", raising=False)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_MEMBERSHIP", Path("nowhere"))


def test_the_default_is_the_affinity_mask(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    assert threads.default_threads() == 3


@pytest.mark.parametrize(("limit", "expected"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1)])
def test_a_cgroup_quota_is_respected(monkeypatch, tmp_path, limit, expected):
    (tmp_path / "cpu.max").write_text(limit + "\n")
    monkeypatch.setattr(threads, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert threads.default_threads() == expected


def test_a_quota_of_a_parent_cgroup_is_respected(monkeypatch, tmp_path):
    """As nested by systemd, Slurm and containers without a separate namespace."""
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "outer" / "cpu.max").write_text("300000 100000\n")
    (inner / "cpu.max").write_text("max 100000\n")
    (tmp_path / "membership").write_text("0::/outer/inner\n")
    monkeypatch.setattr(threads, "_CGROUP", tmp_path)
    monkeypatch.setattr(threads, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert threads.default_threads() == 3


def test_a_quota_of_the_older_cgroups_is_respected(monkeypatch, tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    monkeypatch.setattr(threads, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert threads.default_threads() == 2


def test_variables_set_or_bound_the_number(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    assert threads.default_threads() == 1
    monkeypatch.setenv("FASTLSTM_THREADS", "5")
    assert threads.default_threads() == 5
    monkeypatch.setenv("FASTLSTM_THREADS", "99999")
    with pytest.raises(ConfigError, match="FASTLSTM_THREADS must be at most 256, not 99999"):
        threads.default_threads()
    monkeypatch.setenv("FASTLSTM_THREADS", "many")
    with pytest.raises(ConfigError, match="FASTLSTM_THREADS must be a whole number of at least 1, not 'many'"):
        threads.default_threads()


def test_a_network_too_small_to_share_has_one_worker():
    assert FastNetwork(ModelConfig(10, hidden=8, embedding=4), 4, 1, 8).workers.count == 1
    assert FastNetwork(ModelConfig(10, hidden=200, embedding=4), 4, 1, 2).workers.count == 2


@pytest.mark.parametrize(
    ("workers", "batch", "teams"), [(1, 1, 1), (2, 1, 1), (2, 50, 2), (4, 8, 2), (4, 100, 4), (3, 8, 1), (6, 13, 3)]
)
def test_teams_are_equal_and_each_has_a_tile_of_lanes(monkeypatch, workers, batch, teams):
    monkeypatch.setattr(recurrent, "ROWS", 3)
    assert getattr(recurrent.teams_of, "py_func", recurrent.teams_of)(workers, batch) == teams


def test_arrays_that_kernels_cannot_handle_are_refused(rng):
    config = ModelConfig(10, hidden=5, embedding=3, dtype="float64")
    net = FastNetwork(config, 4, 2, 1)
    parameters = Parameters(config)
    x = np.zeros((4, 2), np.int32)
    state = np.zeros(config.state_shape(2))
    for bad_x, bad_state in (
        (x[:3], state),
        (x.astype(np.int64), state),
        (np.asfortranarray(x), state),
        (x, state[:, :, :1]),
        (x, np.asfortranarray(state)),
        (x, state.astype(np.float32)),
    ):
        with pytest.raises(ValueError, match="must be a C-contiguous array of shape"):
            net.forward(parameters, bad_x, x, bad_state)
    with pytest.raises(RuntimeError, match="forward pass before it"):
        net.backward(parameters, 1.0, parameters)


@pytest.mark.parametrize("backend", [FastNetwork, ReferenceNetwork])
@pytest.mark.parametrize("wrong", [11, -1, 60, 2**31 - 1, -(2**31)])
def test_ids_out_of_range_are_refused_before_anything_is_computed(backend, wrong):
    config = ModelConfig(11, hidden=5, embedding=3)
    net, parameters, state = backend(config, 4, 2), Parameters(config), np.ones(config.state_shape(2), np.float32)
    good, bad = np.zeros((4, 2), np.int32), np.zeros((4, 2), np.int32)
    bad[3, 1] = wrong
    rule = UpdateRule(lr=1.0)
    slots = np.zeros((rule.slots, config.parameter_count), np.float32)
    for x, y in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match="ids from 0 to 10"):
            net.forward(parameters, x, y, state)
        with pytest.raises(ValueError, match="ids from 0 to 10"):
            net.train_step(parameters, Parameters(config), slots, x, y, state, 1.0, rule)
        with pytest.raises(RuntimeError, match="forward pass"):
            net.backward(parameters, 1.0, Parameters(config))
    one = backend(config, 1, 2, training=False)
    with pytest.raises(ValueError, match="ids from 0 to 10"):
        one.generate(parameters, bad[3], state, np.zeros((3, 2)), Drawing())
    assert (state == 1).all()
    assert not parameters.flat.any()


def test_a_refused_forward_pass_leaves_nothing_for_a_backward_pass():
    config = ModelConfig(11, hidden=5, embedding=3)
    net, parameters, state = FastNetwork(config, 4, 2), Parameters(config), np.zeros(config.state_shape(2), np.float32)
    good = np.zeros((4, 2), np.int32)
    net.forward(parameters, good, good, state)
    with pytest.raises(ValueError, match="ids from 0 to 10"):
        net.forward(parameters, good + 11, good, state)
    with pytest.raises(RuntimeError, match="forward pass"):
        net.backward(parameters, 1.0, Parameters(config))


@pytest.mark.parametrize("backend", [FastNetwork, ReferenceNetwork])
@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("value", [np.inf, np.nan, 3.4e38])
def test_nothing_is_drawn_from_logits_that_are_not_finite(backend, temperature, value):
    config = ModelConfig(11, hidden=5, embedding=3)
    parameters = Parameters(config)
    parameters["layers.0.b"][:] = 1.0
    parameters["output.W"][:] = value
    net = backend(config, 1, 2, training=False)
    arguments = (
        np.zeros(2, np.int32),
        np.zeros(config.state_shape(2), np.float32),
        np.zeros((3, 2)),
        Drawing(temperature),
    )
    with np.errstate(all="ignore"), pytest.raises(FastlstmError, match="not finite numbers"):
        net.generate(parameters, *arguments)
    parameters["output.W"][:] = 0
    assert net.generate(parameters, *arguments).shape == (3, 2)


def test_strided_and_foreign_parameters_are_refused(rng):
    config = ModelConfig(10, hidden=5, embedding=3)
    count = Parameters(config).flat.size
    with pytest.raises(ValueError, match="C-contiguous"):
        Parameters(config, np.zeros(2 * count, np.float32)[::2])
    x, net = np.zeros((4, 2), np.int32), FastNetwork(config, 4, 2, 1)
    with pytest.raises(ValueError, match="parameters must be a C-contiguous array"):
        net.forward(Parameters(config, np.zeros(count)), x, x, np.zeros(config.state_shape(2), np.float32))
