"""Every named bug is caught by the checks, shows the rows that are wrong, and is gone when its context ends."""

import numpy as np
import pytest

from fastlstm.backend import build
from fastlstm.cells import CELLS
from fastlstm.checking import complex_step, equivalence
from fastlstm.checking.bugs import BUGS, injected
from fastlstm.checking.centred import check_gradients
from fastlstm.checking.points import point
from fastlstm.checking.rows import rows as rows_of
from fastlstm.config import ModelConfig
from fastlstm.errors import ConfigError
from fastlstm.params import Parameters
from fastlstm.reference import cells, layer, network

#: Every bug in every cell that can have it, with one layer and with two.
CASES = [(name, cell, layers) for name, bug in BUGS.items() for cell in bug.cells for layers in (1, 2)]


# The expected signatures. A row is (name, gate), as in the table of the check.


def rows(config):
    """All rows of the table."""
    return {(row.name, row.gate) for row in rows_of(config)}


def of_layers(config, *kinds, gates=None):
    """The rows of some kinds, W[x], W[h], b or b_h, of all layers, and of all gates or some."""
    names = {f"layers.{n}.{kind}" for n in range(config.layers) for kind in kinds}
    return {(name, gate) for name, gate in rows(config) if name in names and (gates is None or gate in gates)}


def below_output(config):
    return {row for row in rows(config) if not row[0].startswith("output")}


def below_top(config):
    """The rows below the top layer."""
    return {row for row in below_output(config) if not row[0].startswith(f"layers.{config.layers - 1}.")}


def of_top(config, gates):
    """The rows of some gates in the top layer, and all rows below it."""
    top = f"layers.{config.layers - 1}."
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
        "target-not-subtracted": rows(config),
        "mean-for-sum": rows(config),
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


def depends_on_the_text(name, config):
    """Rows of `signature_of_one_step` that are wrong or right depending on how the backward pass is written."""
    if config.cell != "lstm":
        return set()
    return {
        # h / o is wrong for tanh(c) in the way of the forward pass, so the gradient of o is right with it.
        "stale-c": of_top(config, "o") - below_top(config),
        # The c after the step may also be computed from the c before it and the gates.
        "aliased-state": of_top(config, "iog") - below_top(config) - of_layers(config, "W[h]"),
    }.get(name, set())


# More lanes than symbols, so that one is repeated in every step.
V, B = 4, 5


def small(cell, layers):
    return ModelConfig(V, cell, layers, 2, 2, "float64")


def a_point(config, T):
    """The point that `check_gradients` checks, too."""
    return point(config, T, B, np.random.default_rng(0))


def wrong_rows(report):
    return {(check.name, check.gate) for check in report.parameters if not check.passed}


def by_complex_steps(config, T):
    return wrong_rows(complex_step.check_at(a_point(config, T), rows_of(config)))


def by_centred_differences(config, T, per_param=None):
    return wrong_rows(check_gradients(config, seq_len=T, batch=B, backend="reference", per_param=per_param))


def clipped_rows(config, T):
    """The rows of the entries above half of the largest one."""
    at = a_point(config, T)
    exact = Parameters(config)
    network.backward(at.parameters, network.forward(*at), 1.0, exact)
    limit = np.abs(exact.flat).max() / 2
    return {(row.name, row.gate) for row in rows_of(config) if np.abs(exact.flat[row.places]).max() > limit}


@pytest.mark.parametrize(("name", "cell", "layers"), CASES)
def test_both_checks_show_the_rows_that_a_bug_makes_wrong_and_no_others(name, cell, layers):
    config = small(cell, layers)
    # Most bugs make all entries of a row wrong, so that a few of each are enough.
    expected, per_param = signature(name, config), 8
    if name == "clipped":
        expected, per_param = clipped_rows(config, 3), None
    with injected(name, config):
        assert by_complex_steps(config, 3) == expected
        assert by_centred_differences(config, 3, per_param) == expected


@pytest.mark.parametrize(("name", "cell", "layers"), CASES)
def test_a_check_of_one_step_confines_a_bug_of_the_recursion(name, cell, layers):
    config = small(cell, layers)
    expected = clipped_rows(config, 1) if name == "clipped" else signature_of_one_step(name, config)
    open_rows = depends_on_the_text(name, config)
    with injected(name, config):
        assert by_complex_steps(config, 1) - open_rows == expected - open_rows


#: The checks that show what gradients do not; fast against reference is another, of every bug.
SEEN_BY = {"state-not-carried": equivalence.check_chunks, "lanes-mixed": equivalence.check_lanes}


@pytest.mark.parametrize("name", SEEN_BY)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_bug_that_gradients_do_not_show_is_seen_by_another_check(name, cell, layers):
    config = small(cell, layers)
    at = a_point(config, 3)
    with injected(name, config):
        assert not SEEN_BY[name](at, "reference").passed
    assert SEEN_BY[name](at, "reference").passed


@pytest.mark.parametrize("name", BUGS)
def test_fast_against_reference_shows_every_bug(name):
    config = small(BUGS[name].cells[0], 2)
    with injected(name, config):
        assert not equivalence.check_backends(a_point(config, 3), "float64").passed


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


@pytest.mark.parametrize("name", BUGS)
def test_after_the_context_gradients_are_right_again(name):
    config = small(BUGS[name].cells[-1], 1)
    with injected(name, config):
        pass
    assert by_centred_differences(config, 3, 8) == set()


@pytest.mark.parametrize(("name", "cell"), [(name, cell) for name, bug in BUGS.items() for cell in bug.cells])
def test_an_error_inside_of_the_context_undoes_the_bug(name, cell):
    before = functions_of_the_reference(cell)
    context = injected(name, small(cell, 1))
    context.__enter__()
    assert functions_of_the_reference(cell) != before
    assert not context.__exit__(ValueError, ValueError(), None)
    assert functions_of_the_reference(cell) == before


def test_bugs_of_one_function_can_be_combined():
    config = small("lstm", 1)
    with injected("sign", config), injected("bias-overwritten", config):
        assert by_complex_steps(config, 3) == signature("sign", config) | signature("bias-overwritten", config)
    assert by_complex_steps(config, 3) == set()


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
