"""Every named bug is caught by the checks, shows the rows that are wrong, and is gone when its context ends."""

import functools

import numpy as np
import pytest

from fastlstm.backend import build
from fastlstm.cells import CELLS
from fastlstm.checking.bugs import BUGS, injected
from fastlstm.checking.centred import check_gradients
from fastlstm.checking.points import point
from fastlstm.config import ModelConfig
from fastlstm.errors import ConfigError
from fastlstm.params import Parameters
from fastlstm.reference import cells, layer, network

#: Bugs whose loss is another one, with right gradients: not the table of gradients shows them.
OF_THE_LOSS = ("state-not-carried", "lanes-mixed")

OF_GRADIENTS = [name for name in BUGS if name not in OF_THE_LOSS]

#: Every bug in every cell that can have it, with one layer and with two.
CASES = [(name, cell, layers) for name, bug in BUGS.items() for cell in bug.cells for layers in (1, 2)]
CASES_OF_GRADIENTS = [case for case in CASES if case[0] in OF_GRADIENTS]


# The expected signatures. A row is (parameter, gate), the rows of W being "W[x]" and "W[h]"; gates of the embedding and
# of the output are "".


def rows(config):
    """All rows, with the entries of each as an index into the parameter."""
    H, structure = config.hidden, config.structure
    found = {("embedding", ""): ("embedding", ...)}
    for n in range(config.layers):
        X = config.inputs(n)
        for k, gate in enumerate(structure.gates):
            columns = slice(k * H, (k + 1) * H)
            found[f"{n}.W[x]", gate] = f"layers.{n}.W", np.s_[:X, columns]
            found[f"{n}.W[h]", gate] = f"layers.{n}.W", np.s_[X:, columns]
            found[f"{n}.b", gate] = f"layers.{n}.b", columns
        for k, gate in enumerate(structure.separate):
            found[f"{n}.b_h", gate] = f"layers.{n}.b_h", slice(k * H, (k + 1) * H)
    return found | {("output.W", ""): ("output.W", ...), ("output.b", ""): ("output.b", ...)}


def of_layers(config, *kinds, gates=None):
    """The rows of some kinds, W[x], W[h], b or b_h, of all layers, and of all gates or some."""
    return {
        (name, gate) for name, gate in rows(config)
        if name.split(".")[-1] in kinds and name[0].isdigit() and (gates is None or gate in gates)
    }  # fmt: skip


def below_output(config):
    return {row for row in rows(config) if not row[0].startswith("output")}


def below_top(config):
    """The rows below the top layer."""
    return {row for row in below_output(config) if not row[0].startswith(f"{config.layers - 1}.")}


def of_top(config, gates):
    """The rows of some gates in the top layer, and all rows below it."""
    top = f"{config.layers - 1}."
    return below_top(config) | {row for row in rows(config) if row[0].startswith(top) and row[1] in gates}


def signature(name, config):
    """The rows that a bug makes wrong in a sequence of several steps."""
    first = config.structure.gates[0]
    swapped = {"lstm": "og", "gru": "rz"}.get(config.cell)
    return {
        "sign": of_layers(config, "W[x]", "W[h]", gates=first),
        "gates-swapped": of_layers(config, "W[x]", "W[h]", "b", gates=swapped),
        "state-after": of_layers(config, "W[h]"),
        "bias-overwritten": of_layers(config, "b", "b_h"),
        "embedding-overwritten": {("embedding", "")},
        "layer-below-forgotten": below_top(config),
        "target-not-subtracted": set(rows(config)),
        "mean-for-sum": set(rows(config)),
        "bias-missing": of_layers(config, "b", "b_h"),
        "state-not-carried": set(),
        "lanes-mixed": set(),
    }.get(name, below_output(config))


def signature_of_one_step(name, config):
    """Those that it makes wrong in a sequence of one step, where no gradient comes from the next."""
    # What the step reads is what it has written. The equations of an RNN do not need the former, but dW does.
    aliased = {"rnn": set(), "lstm": of_top(config, "f"), "gru": of_top(config, "z")}[config.cell]
    at_one = {
        "bias-overwritten": set(),
        "next-step-dropped": set(),
        "transposed-weight": set(),
        "carry-dropped": set(),
        "aliased-state": aliased | of_layers(config, "W[h]"),
        "reset-ignored": of_layers(config, "W[h]", "b_h", gates="n"),
    }
    if config.cell == "lstm":
        at_one |= {"tanh-argument": of_top(config, "ifg"), "sigmoid-derivative": of_top(config, "o")}
    if config.cell == "gru":
        at_one |= {"states-swapped": of_top(config, "z"), "sigmoid-derivative": of_top(config, "z")}
    return at_one.get(name, signature(name, config))


# More lanes than symbols, so that one is repeated in every step.
V, B = 4, 5


def small(cell, layers):
    return ModelConfig(V, cell, layers, 3, 2, "float64")


def a_point(config, T):
    return point(config, T, B, np.random.default_rng(0))


def analytic(config, T):
    at = a_point(config, T)
    gradients = Parameters(config)
    network.backward(at.parameters, network.forward(at.parameters, at.x, at.y, at.state), 1.0, gradients)
    return gradients


def complex_step(config, T):
    at, h = a_point(config, T), 1e-25
    moved = Parameters(config, at.parameters.flat.astype("complex128"))
    found = np.empty(config.parameter_count)
    for n in range(len(found)):
        moved.flat[n] += 1j * h
        found[n] = network.forward(moved, at.x, at.y, at.state).nats.sum().imag / h
        moved.flat[n] = at.parameters.flat[n]
    return Parameters(config, found)


#: That of the right forward pass, which most bugs leave alone.
right_complex_step = functools.cache(complex_step)


def wrong_rows(found, exact):
    """The rows in which an entry is wrong by more than 1e-9 of its parameter's largest.

    Right entries are within 1e-14 of it; the smallest error of a bug in any row here is 4e-4.
    """
    return {
        row for row, (name, place) in rows(found.config).items()
        if not np.allclose(found[name][place], exact[name][place], rtol=0, atol=1e-9 * np.abs(exact[name]).max())
    }  # fmt: skip


def clipped_rows(exact):
    """The rows of the entries above half of the largest one."""
    limit = np.abs(exact.flat).max() / 2
    return {row for row, (name, place) in rows(exact.config).items() if np.abs(exact[name][place]).max() > limit}


@pytest.mark.parametrize("T", [3, 1])
@pytest.mark.parametrize(("name", "cell", "layers"), CASES)
def test_a_bug_makes_its_own_rows_wrong_and_no_others(name, cell, layers, T):
    config = small(cell, layers)
    exact = right_complex_step(config, T)
    expected = signature_of_one_step(name, config) if T == 1 else signature(name, config)
    if name == "clipped":
        expected = clipped_rows(exact)
    with injected(name, config):
        if BUGS[name].stage == "forward":
            exact = complex_step(config, T)
        assert wrong_rows(analytic(config, T), exact) == expected


@pytest.mark.parametrize(("name", "cell", "layers"), CASES_OF_GRADIENTS)
def test_centred_differences_detect_a_bug(name, cell, layers):
    config = small(cell, layers)
    with injected(name, config):
        assert not check_gradients(config, seq_len=3, batch=B, backend="reference").passed
    assert check_gradients(config, seq_len=3, batch=B, backend="reference", entries=2).passed


@pytest.mark.parametrize("name", OF_THE_LOSS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_bug_that_gradients_do_not_show_changes_the_loss(name, cell):
    at = a_point(small(cell, 1), 5)
    right = network.forward(*at).nats.sum()
    with injected(name, at.parameters.config):
        assert abs(network.forward(*at).nats.sum() - right) > 1e-3 * right  # rounding errors: 1e-15


@pytest.mark.parametrize("name", ["mean-for-sum", "state-not-carried", "carry-dropped"])
def test_the_kernels_stay_right(name):
    """A bug of each module of the reference leaves the other backend's bits as they are."""
    at = a_point(small("lstm", 2), 5)
    config = at.parameters.config
    fast = build("fast", config, 5, B, 1)

    def computed():
        gradients = Parameters(config)
        nats = fast.forward(at.parameters, at.x, at.y, at.state.copy())
        fast.backward(at.parameters, 1.0, gradients)
        return nats, gradients.flat.tobytes()

    before = computed()
    with injected(name, config):
        assert computed() == before


def functions_of_the_reference(cell):
    modules = (network, layer, cells.CELLS[cell])
    return [vars(module).get(name) for module in modules for name in ("forward", "backward", "through_time")]


@pytest.mark.parametrize(("name", "cell"), [(name, cell) for name, bug in BUGS.items() for cell in bug.cells])
def test_an_error_inside_of_the_context_undoes_the_bug(name, cell):
    before = functions_of_the_reference(cell)
    context = injected(name, small(cell, 1))
    context.__enter__()
    assert functions_of_the_reference(cell) != before
    assert not context.__exit__(ValueError, ValueError(), None)
    assert functions_of_the_reference(cell) == before


def test_bugs_of_different_functions_can_be_combined():
    config = small("lstm", 1)
    exact = right_complex_step(config, 3)
    with injected("sign", config), injected("bias-overwritten", config):
        assert wrong_rows(analytic(config, 3), exact) == signature("sign", config) | signature(
            "bias-overwritten", config
        )
    assert wrong_rows(analytic(config, 3), exact) == set()


def test_an_unknown_bug_or_one_of_another_cell_is_refused():
    with pytest.raises(ConfigError, match=r"no bug 'signs': choose one of sign, .*lanes-mixed"):
        injected("signs", small("lstm", 1))
    with pytest.raises(ConfigError, match=r"'reset-ignored' needs the cell gru, and this network is of lstm"):
        injected("reset-ignored", small("lstm", 1))


def test_there_are_bugs_of_both_passes_for_every_cell_and_each_is_explained():
    for cell in CELLS:
        stages = [bug.stage for bug in BUGS.values() if cell in bug.cells]
        assert stages.count("backward") >= 12
        assert stages.count("forward") >= 3
    for name, bug in BUGS.items():
        assert bug.name == name
        assert bug.about.count(".") >= 2
        assert bug.about.isascii()
