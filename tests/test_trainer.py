"""Training: the assignment's losses on both backends, better than counting, and blind to who looks on."""

import math
import time
import tracemalloc

import numpy as np
import pytest

from fastlstm import Model, TrainConfig
from fastlstm.backend import build
from fastlstm.batches import Lanes
from fastlstm.config import ASSIGNMENT_MODEL, ASSIGNMENT_TRAIN
from fastlstm.errors import ConfigError, FastlstmError, TextError
from fastlstm.optimizers import UpdateRule
from fastlstm.params import Parameters
from fastlstm.text import split
from fastlstm.trainer import Observer

SMALL = {"hidden": 8, "embedding": 4}
QUICK = {"seq_len": 8, "batch": 4, "steps": 30, "sample_length": 20}


class Recorder(Observer):
    """Keeps what it is told."""

    def __init__(self):
        self.losses, self.smoothed, self.validated_at, self.samples = [], [], [], {}

    def stepped(self, progress):
        self.losses.append(progress.loss)
        self.smoothed.append(progress.train_nats)

    def validated(self, progress):
        self.validated_at.append(progress.step)

    def sampled(self, progress, text):
        self.samples[progress.step] = text


def trained(text, **settings):
    model, recorder = Model.for_text(text, **SMALL), Recorder()
    result = model.fit(text, TrainConfig(**QUICK | settings), observer=recorder)
    return model, recorder, result


def assignment(cell, text):
    """The model and the training of the preset, in float64, 100 steps."""
    model = Model.for_text(text, cell=cell, dtype="float64", **ASSIGNMENT_MODEL[cell])
    return model, ASSIGNMENT_TRAIN[cell] | {"steps": 100, "sample_length": 0}


def test_the_assignment_has_the_same_losses_on_both_backends(default_text):
    losses = {}
    for backend in ("reference", "fast"):
        model, settings = assignment("lstm", default_text)
        recorder = Recorder()
        model.fit(default_text, TrainConfig(**settings, backend=backend), observer=recorder)
        losses[backend] = recorder.losses
    assert len(losses["reference"]) == 100
    np.testing.assert_allclose(losses["fast"], losses["reference"], rtol=0, atol=1e-9)
    assert np.mean(losses["fast"][-10:]) < np.mean(losses["fast"][:10]) - 0.1


def test_the_assignment_s_rnn_takes_the_same_steps_on_both_backends(default_text):
    """Each of the 100 steps from the same point, on the reference's way.

    With the assignment's rate for the RNN, two runs drift apart whatever computes them: changing the initial weights of
    the reference by one unit in the last place changes its own losses by 1e-8 after 10 steps and by 0.1 after 100.
    The same losses to 1e-9 can so be asked of each step, not of runs that go their own ways.
    """
    model, settings = assignment("rnn", default_text)
    config = TrainConfig(**settings)
    T, rule = config.seq_len, UpdateRule(config.lr, config.clip_value)
    ref = [model.parameters, Parameters(model.config), Parameters(model.config)]
    comp = [Parameters(model.config) for _ in ref]
    networks = [build(name, model.config, T, 1) for name in ("reference", "fast")]
    x, y, state = np.zeros((T, 1), np.int32), np.zeros((T, 1), np.int32), model.zero_state(1)
    lanes = Lanes(model.encode(default_text), T, 1)
    for _ in range(config.steps):
        lanes.next(x, y)
        for mine, its in zip(comp, ref, strict=True):
            mine.flat[...] = its.flat
        comp_state = state.copy()
        ref_nats = networks[0].train_step(*ref, x, y, state, 1.0, rule)
        comp_nats = networks[1].train_step(*comp, x, y, comp_state, 1.0, rule)
        assert comp_nats == pytest.approx(ref_nats, abs=1e-9)
        np.testing.assert_allclose(comp_state, state, rtol=0, atol=1e-12)
        # Adagrad divides by sqrt(m + 1e-8): a gradient's rounding error, some 1e-14, grows by 1e4 at most.
        np.testing.assert_allclose(comp[0].flat, ref[0].flat, rtol=0, atol=1e-9)


def test_the_assignment_is_followed_to_the_letter(default_text):
    """Against a loop written here: summed loss, clipping by value, Adagrad, smoothing, reset at the wrap."""
    text, steps, T = default_text[:400], 12, 64
    settings = ASSIGNMENT_MODEL["lstm"]
    model, recorder = Model.for_text(text, dtype="float64", **settings), Recorder()
    naive = Model.for_text(text, dtype="float64", **settings)
    model.fit(text, TrainConfig(**ASSIGNMENT_TRAIN["lstm"], steps=steps), observer=recorder)

    ids, p, state = naive.encode(text), 0, None
    smooth = -math.log(1.0 / len(naive.vocab)) * T
    memory = np.zeros_like(naive.parameters.flat)
    for n in range(steps):
        if n == 0 or p + T + 1 >= len(ids):
            p, state = 0, None
        x, y = ids[p : p + T, None], ids[p + 1 : p + T + 1, None]
        loss, gradients, state = naive.loss_and_grads(x, y, state, reduction="sum", backend="reference")
        smooth = smooth * 0.999 + loss * 0.001
        assert recorder.smoothed[n] == pytest.approx(smooth / T, rel=1e-10)
        g = np.clip(gradients.flat, -5, 5)
        memory += g * g
        naive.parameters.flat[...] -= 0.05 * g / np.sqrt(memory + 1e-8)
        p += T
    np.testing.assert_allclose(model.parameters.flat, naive.parameters.flat, rtol=0, atol=1e-9)


def bigram_nats(train, val, V):
    """Nats a symbol of a bigram model with add-one smoothing, fitted on the training part."""
    counts = np.ones((V, V))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    p = counts / counts.sum(axis=1, keepdims=True)
    return -np.log(p[val[:-1], val[1:]]).mean()


def test_a_minute_of_training_beats_a_bigram_model(default_text):
    model = Model.for_text(default_text, hidden=64, embedding=16)
    started = time.perf_counter()
    result = model.fit(default_text, TrainConfig(seq_len=32, batch=16, steps=1200, sample_every=0, eval_every=0))
    seconds = time.perf_counter() - started - result.compile_seconds
    bigram = bigram_nats(*split(model.encode(default_text), 0.1), len(model.vocab))
    assert result.val_nats < bigram - 0.2
    assert seconds < 60


@pytest.mark.parametrize("backend", ["fast", "reference"])
def test_looking_on_changes_no_bit(default_text, backend):
    text = default_text[:3000]
    watched, recorder, result = trained(text, eval_every=1, sample_every=1, backend=backend)
    alone, _, ref = trained(text, eval_every=0, sample_every=0, sample_length=0, val_frac=0.1, backend=backend)
    assert recorder.validated_at == list(range(1, 31)) == list(recorder.samples)
    assert watched.parameters.flat.tobytes() == alone.parameters.flat.tobytes()
    assert (result.train_nats, result.val_nats) == (ref.train_nats, ref.val_nats)


def test_the_number_of_threads_changes_no_bit(default_text):
    flats = set()
    for threads in (1, 2, 3):
        model = Model.for_text(default_text, hidden=96, embedding=8)
        model.fit(default_text[:20_000], TrainConfig(seq_len=8, batch=13, steps=5, threads=threads, sample_length=0))
        flats.add(model.parameters.flat.tobytes())
    assert len(flats) == 1


def test_looks_come_about_ten_times_and_at_the_end(default_text):
    _, recorder, _ = trained(default_text[:3000], steps=95)
    assert recorder.validated_at == list(recorder.samples) == [*range(10, 95, 10), 95]
    _, recorder, _ = trained(default_text[:3000], eval_every=0, sample_every=0)
    assert recorder.validated_at == list(recorder.samples) == [30]


def test_the_reported_validation_is_the_evaluation_of_the_result(default_text):
    text = default_text[:3000]
    model, recorder, result = trained(text)
    val = split(model.encode(text), 0.1)[1]
    assert result.val_nats == model.evaluate(val).nats_per_char
    assert recorder.samples[30] == model.sample(length=20, seed=30)
    assert model.training["val_nats"] == result.val_nats
    assert TrainConfig.from_dict(model.training["config"]) == TrainConfig(**QUICK)


def test_there_is_no_validation_without_a_part_for_it(default_text):
    _, recorder, result = trained(default_text[:3000], val_frac=0.0)
    assert result.val_nats is None
    assert recorder.validated_at == []


def test_a_wish_to_stop_ends_the_run_within_a_step(default_text):
    model, recorder = Model.for_text(default_text, **SMALL), Recorder()
    result = model.fit(default_text, TrainConfig(**QUICK), observer=recorder, stop=lambda: len(recorder.losses) == 7)
    assert result.steps == len(recorder.losses) == model.training["steps"] == 7
    assert recorder.validated_at
    assert result.val_nats is not None  # of the last look


def test_a_run_of_no_steps_is_a_run(default_text):
    model, recorder, result = trained(default_text[:3000], steps=0)
    assert (result.steps, result.chars_per_s) == (0, 0.0)
    assert result.train_nats == math.log(len(model.vocab))
    assert list(recorder.samples) == [0]


def test_divergence_is_told(default_text):
    text = default_text[:3000]
    model = Model.for_text(text, **SMALL)
    model.parameters["output.b"][0] = np.nan
    with pytest.raises(FastlstmError, match=r"at step 1 .*lower the learning rate"):
        model.fit(text, TrainConfig(**QUICK))
    with np.errstate(all="ignore"), pytest.raises(FastlstmError, match="finite"):
        Model.for_text(text, **SMALL).fit(text, TrainConfig(**QUICK | {"lr": 1e300, "schedule": "constant"}))


def test_a_text_that_is_too_short_is_refused(default_text):
    with pytest.raises(TextError, match="at least two"):
        trained("a")
    with pytest.raises(ConfigError, match="lower batch or seq_len"):
        trained(default_text[:30])


def test_memory_does_not_grow_with_steps(default_text):
    text = default_text[:3000]
    model = Model.for_text(text, **SMALL)
    model.fit(text, TrainConfig(**QUICK))
    peaks = []
    for steps in (50, 1000):
        tracemalloc.start()
        model.fit(text, TrainConfig(**QUICK | {"steps": steps}))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 20_000
