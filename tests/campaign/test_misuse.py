"""Calls of the Python interface with wrong or unusual arguments."""

import dataclasses
import json
import math
from functools import cache

import numpy as np
from harness import Outcome, part, require
from subjects import KINDS, TEXT, fresh_model

from fastlstm import Model, ModelConfig, TrainConfig, Vocab
from fastlstm.backend import build
from fastlstm.batches import Lanes
from fastlstm.drawing import Drawing
from fastlstm.errors import FastlstmError
from fastlstm.optimizers import UpdateRule
from fastlstm.params import Parameters

#: Exceptions that a wrong argument may raise: fastlstm's errors, and Python's for a wrong type or value.
DOCUMENTED = (FastlstmError, ValueError, TypeError, AttributeError, KeyError, RuntimeError, OverflowError)
STRANGE = [
    None, True, -1, 0, 1, 1.5, -0.0, math.nan, math.inf, 1e308, 1e-320, 10**30, -(10**30), 10**400, "", "x", "so it",
    "字", "\udcff", b"", b"so", b"\xff", bytearray(b"so"), [], [0], [[0]], (), {}, {"a": 1}, object(), 1j, np.int64(3),
    np.float32(0.5),
    np.zeros(3), np.zeros((2, 2), np.int32), np.array([-1]), np.array([60]), np.array([2**40]), np.array(["a"]),
    np.array([], np.int32), np.array([None]), np.arange(5)[::-1], np.dtype("float32"), np.str_("lstm"), lambda: 0,
]  # fmt: skip


@part("misuse of the interface", full=639, small=64)
def test_a_wrong_argument_is_refused_or_does_no_harm(trials):
    """Unexpected types, shapes, ranges and layouts give a documented exception or the correct result, and do not change
    the model.
    """
    trials.run(misuse)


def misuse(trial):
    rng = trial.generator()
    kind = int(rng.integers(len(KINDS)))
    model, expected = unharmed(kind)
    before = model.parameters.flat.tobytes()
    use = USES[trial.number % len(USES)]
    outcome = Outcome.HELD
    try:
        with np.errstate(all="ignore"):
            use(model, rng)
    except DOCUMENTED as error:
        require(str(error), Outcome.WRONG, f"{use.__name__}: {type(error).__name__} without a message")
        outcome = Outcome.REFUSED
    require(model.parameters.flat.tobytes() == before, Outcome.WRONG, f"{use.__name__} changes the parameters")
    require(model.evaluate(TEXT) == expected, Outcome.WRONG, f"{use.__name__}: the model then has another evaluation")
    return outcome


@cache
def unharmed(kind):
    """A model that all trials of a process use in turn, and its evaluation."""
    model = fresh_model(kind)
    return model, model.evaluate(TEXT)


def strange(rng):
    return STRANGE[rng.integers(len(STRANGE))]


def call_strangely(function, rng, **arguments):
    """Call with one or sometimes two arguments replaced by strange values; returns the arguments and the result."""
    for name in rng.choice(sorted(arguments), 1 + (rng.random() < 0.2)):
        arguments[str(name)] = strange(rng)
    return arguments, function(**arguments)


def use_sample(model, rng):
    settings = {"temperature": 1.0, "top_k": 9, "top_p": 0.9, "min_p": 0.1, "seed": 0, "backend": "fast", "threads": 1}
    arguments, text = call_strangely(without_hours(model.sample), rng, prompt="so", length=5, **settings)
    require(len(text) == arguments["length"], Outcome.WRONG, f"{len(text)} symbols of {arguments}")


def use_stream(model, rng):
    arguments, text = call_strangely(
        lambda **settings: "".join(without_hours(model.stream)(**settings)),
        rng,
        prompt="so",
        length=5,
        temperature=0.5,
        seed=1,
    )
    require(len(text) == arguments["length"], Outcome.WRONG, f"{len(text)} symbols of {arguments}")


def use_continuations(model, rng):
    arguments, texts = call_strangely(
        without_hours(model.continuations), rng, prompt="so", num=2, length=5, temperature=0.5
    )
    shape = {len(text) for text in texts}
    require(len(texts) == arguments["num"] and shape == {arguments["length"]}, Outcome.WRONG, f"{texts} of {arguments}")


def without_hours(function):
    """Omit valid calls that would take hours: very long texts."""

    def call(**arguments):
        if isinstance(arguments["length"], int) and arguments["length"] > 10**6:
            raise ValueError("left out")
        return function(**arguments)

    return call


def use_evaluate(model, rng):
    arguments, evaluation = call_strangely(model.evaluate, rng, text=TEXT[:50], backend="fast", threads=1)
    reference = model.evaluate(arguments["text"], backend="reference")
    require(evaluation.chars == reference.chars, Outcome.WRONG, f"{evaluation} of {arguments}")
    close = math.isclose(evaluation.nats_per_char, reference.nats_per_char, rel_tol=1e-4)
    require(close, Outcome.WRONG, f"{evaluation} of {arguments}, the reference {reference}")


def use_encode(model, rng):
    text = strange(rng)
    ids = model.encode(text)
    known = text
    if isinstance(text, str):  # an unknown character becomes the escape
        known = "".join(c if ord(c) in model.vocab.symbols else "\N{REPLACEMENT CHARACTER}" for c in text)
    require(model.vocab.decode(ids) == known or list(ids) == list(text), Outcome.WRONG, f"{ids} of {text!r}")


def use_vocab(model, rng):
    value = strange(rng)
    use = [Vocab, Vocab.from_text, Vocab.from_json, model.vocab.encode, model.vocab.decode][rng.integers(5)]
    result = use(value)
    if isinstance(result, Vocab):
        require(Vocab.from_json(result.to_json()) == result, Outcome.WRONG, f"{use} of {value!r}")
    else:
        require(len(result) == len(value), Outcome.WRONG, f"{use.__name__} of {value!r}: {result!r}")


def use_model_config(model, rng):
    arguments, config = call_strangely(ModelConfig, rng, **ModelConfig(5, hidden=4, embedding=3).to_dict())
    require_plain(config, arguments)


def use_train_config(model, rng):
    arguments, config = call_strangely(TrainConfig, rng, **TrainConfig(steps=3).to_dict())
    require_plain(config, arguments)


def require_plain(config, arguments):
    """An accepted configuration must be restored from JSON: its values are plain Python values."""
    try:
        again = type(config).from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False)))
        for field in dataclasses.fields(config):
            if isinstance(value := getattr(config, field.name), int):
                float(value)
    except (TypeError, ValueError, OverflowError) as error:
        require(False, Outcome.WRONG, f"accepted, but of no use ({error}): {arguments}")
    require(again == config, Outcome.WRONG, f"another configuration after JSON: {arguments}")


def use_model(model, rng):
    def made(config, vocab, parameters, seed):
        return Model(config, vocab, parameters, seed)

    arguments, other = call_strangely(made, rng, config=model.config, vocab=model.vocab, parameters=None, seed=1)
    require(isinstance(other.evaluate(TEXT).chars, int), Outcome.WRONG, f"{arguments}")


def use_fit(model, rng):
    other = Model(model.config, model.vocab, seed=1)
    config = TrainConfig(steps=1, seq_len=4, batch=2, sample_length=0)
    call_strangely(other.fit, rng, text=TEXT, config=config, stop=None)
    require(np.isfinite(other.parameters.flat).all(), Outcome.WRONG, "parameters that are not finite")


def use_parameters(model, rng):
    flat = hostile_array(model.parameters.flat, rng)
    parameters = Parameters(model.config, flat)
    require(parameters.flat.shape == model.parameters.flat.shape, Outcome.WRONG, "parameters of another shape")
    name = ["output.b", "nonsense", "", None, 0][rng.integers(5)]
    value = strange(rng)
    parameters[name] = value
    require(np.array_equal(parameters[name], np.broadcast_to(value, parameters[name].shape), equal_nan=True)
            or not isinstance(value, np.ndarray), Outcome.WRONG, f"{value!r} is stored differently")  # fmt: skip


def use_lanes(model, rng):
    arguments, lanes = call_strangely(Lanes, rng, ids=model.encode(TEXT), seq_len=4, batch=2)
    x = np.zeros((arguments["seq_len"], arguments["batch"]), np.int32)
    lanes.next(x, hostile_array(x, rng))


# -- arrays under the contract of both backends ------------------------------------------------------------------------

T, B = 4, 2


def hostile_array(array, rng):
    """The array in another layout, dtype or shape, read-only, or with unexpected values."""
    return LAYOUTS[rng.integers(len(LAYOUTS))](array.copy())


def read_only(array):
    array.flags.writeable = False
    return array


def with_value(value):
    def change(array):
        if array.dtype.kind == "f":
            return array
        array.flat[0] = array.flat[-1] = value
        return array

    return change


LAYOUTS = (
    lambda array: array,
    np.asfortranarray,
    lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    lambda array: array[::-1],
    lambda array: array[:-1],
    lambda array: array[..., None],
    lambda array: np.concatenate([array, array]),
    lambda array: array.reshape(-1),
    lambda array: array.T,
    lambda array: array.astype(np.int64),
    lambda array: array.astype(np.float16),
    lambda array: array.astype(object),
    lambda array: array.astype(array.dtype.newbyteorder()),
    lambda array: array.tolist(),
    lambda array: None,
    read_only,
    with_value(-1),
    with_value(5),
    with_value(60),
    with_value(2**31 - 1),
    with_value(-(2**31)),
)  # fmt: skip


def use_loss_and_grads(model, rng):
    ids = model.encode(TEXT)[: T * B + 1].astype(np.int32)
    arguments = {"x": ids[:-1].reshape(T, B), "y": ids[1:].reshape(T, B), "state": model.zero_state(B)}
    name = str(rng.choice(sorted(arguments)))
    arguments[name] = hostile_array(arguments[name], rng)
    loss, gradients, _ = model.loss_and_grads(**arguments)
    ref_loss, ref_gradients, _ = model.loss_and_grads(**arguments, backend="reference")
    require(math.isclose(loss, ref_loss, rel_tol=1e-4), Outcome.WRONG, f"{loss} instead of {ref_loss}: {name}")
    close = np.allclose(gradients.flat, ref_gradients.flat, rtol=1e-3, atol=1e-4)
    require(close, Outcome.WRONG, f"other gradients than the reference's: {name}")


def use_networks(model, rng):
    """Both backends get the same arrays: results for accepted ones agree, and both refuse wrong ids."""
    hostile = str(rng.choice(["x", "y", "x", "y", "state", "flat"]))
    ids = model.encode(TEXT)[: T * B + 1].astype(np.int32)
    plain = {
        "x": ids[:-1].reshape(T, B),
        "y": ids[1:].reshape(T, B),
        "state": model.zero_state(B),
        "flat": model.parameters.flat,
    }
    layout = LAYOUTS[rng.integers(len(LAYOUTS))]
    call = [forward, train_step, generate][rng.integers(3)]
    found = {name: attempt_on(name, call, model, plain, hostile, layout) for name in ("fast", "reference")}
    if has_wrong_ids(layout(plain["x"].copy()), len(model.vocab)) and hostile in ("x", "y"):
        unused = hostile == "y" and call is generate
        refused = all(isinstance(value, ValueError) for value in found.values())
        require(unused or refused, Outcome.WRONG, f"{call.__name__}: ids out of range in {hostile}: {found}")
    if isinstance(found["fast"], Exception):
        raise found["fast"]
    if not isinstance(found["reference"], Exception):
        same = np.allclose(found["fast"], found["reference"], rtol=1e-3, atol=1e-4)
        require(same, Outcome.WRONG, f"{call.__name__}: {found} with another {hostile}")


def has_wrong_ids(ids, vocab_size):
    """Whether these are ids of a valid shape and type, of which at least one is out of range."""
    fits = isinstance(ids, np.ndarray) and ids.shape == (T, B) and ids.dtype == np.int32
    return fits and not 0 <= ids.min() <= ids.max() < vocab_size


def attempt_on(backend, call, model, plain, hostile, layout):
    """The result of a call with one hostile array, or the exception."""
    arguments = {name: array.copy() for name, array in plain.items()}
    try:
        arguments[hostile] = layout(arguments[hostile])
        return call(backend, model.config, **arguments)
    except (*DOCUMENTED, IndexError) as error:
        return error


def forward(backend, config, x, y, state, flat):
    return build(backend, config, T, B, 1).forward(Parameters(config, flat), x, y, state)


def train_step(backend, config, x, y, state, flat):
    gradients, rule = Parameters(config), UpdateRule(0.01, clip_norm=5.0)
    slots = np.zeros((rule.slots, config.parameter_count), config.dtype)
    build(backend, config, T, B, 1).train_step(Parameters(config, flat), gradients, slots, x, y, state, 1.0, rule)
    return gradients.flat


def generate(backend, config, x, y, state, flat):
    uniforms = np.full((3, B), 0.5)
    return build(backend, config, 1, B, 1).generate(Parameters(config, flat), x[0], state, uniforms, Drawing())


USES = (
    use_sample, use_networks, use_continuations, use_evaluate, use_networks, use_encode, use_vocab, use_model_config,
    use_networks, use_train_config, use_model, use_fit, use_parameters, use_lanes, use_loss_and_grads, use_stream,
)  # fmt: skip
