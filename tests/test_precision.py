"""The setting `precision`: what it means for a model, where it is recorded, and what cannot be changed later."""

import dataclasses
import json

import numpy as np
import pytest
from runs_to_resume import IDS, TEXT, VOCAB, run_config, untrained

from fastlstm import Model, ModelConfig, TrainConfig, config_file, evaluate, history, precision, run_checkpoint, sample
from fastlstm import train as train_verb
from fastlstm.backend import has_bf16
from fastlstm.errors import ConfigError
from fastlstm.precision import Precision, effective, settled
from fastlstm.run_folder import CONFIG
from fastlstm.trainer import Trainer

QUICK = ["--hidden", "6", "--embedding", "4", "--seq-len", "8", "--batch", "4", "--steps", "3", "--quiet"]
REFERENCE = ["--backend", "reference"]


@pytest.fixture
def lacking(monkeypatch):
    """A processor without instructions for bf16."""
    monkeypatch.setattr("fastlstm.kernels.host.has_bf16", lambda: False)


@pytest.fixture
def capable(monkeypatch):
    """A processor with them."""
    monkeypatch.setattr("fastlstm.kernels.host.has_bf16", lambda: True)


def model_config(dtype="float32", hidden=64):
    return ModelConfig(10, hidden=hidden, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("wanted", ["float32", "float64"])
def test_a_dtype_is_computed_in_whatever_the_model_is_stored_in(wanted, dtype):
    assert effective(wanted, model_config(dtype), "fast") == Precision(wanted, False)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_auto_is_the_models_dtype_for_inference(dtype, capable, monkeypatch):
    monkeypatch.setattr(precision, "AUTO_BF16_HIDDEN", 0)
    assert effective("auto", model_config(dtype), "fast") == Precision(dtype, False)


def test_auto_is_bf16_only_where_it_is_preferred_fast_and_rounds_nothing_that_was_wider(capable, monkeypatch):
    monkeypatch.setattr(precision, "AUTO_BF16_HIDDEN", 64)
    for model, backend, name in (
        (model_config(), "fast", "bf16"),
        (model_config(hidden=63), "fast", "float32"),
        (model_config("float64"), "fast", "float64"),
        (model_config(), "reference", "float32"),
    ):
        assert settled(TrainConfig(backend=backend), model).precision == name


def test_a_processor_without_bf16_computes_auto_in_float32_and_refuses_bf16(lacking, monkeypatch):
    monkeypatch.setattr(precision, "AUTO_BF16_HIDDEN", 0)
    assert settled(TrainConfig(), model_config()).precision == "float32"
    with pytest.raises(ConfigError, match=r"no instructions for bf16.*: choose precision float32 or auto"):
        effective("bf16", model_config(), "fast")
    assert effective("bf16", model_config(), "reference") == Precision("float32", True)


def test_training_needs_parameters_of_the_precisions_dtype(capable):
    for wanted, dtype in (("float64", "float32"), ("float32", "float64"), ("bf16", "float64")):
        with pytest.raises(ConfigError, match=rf"those of the model are {dtype}: convert it \(model.astype"):
            settled(TrainConfig(precision=wanted), model_config(dtype))
    assert settled(TrainConfig(precision="bf16"), model_config()).precision == "bf16"
    assert settled(TrainConfig(), model_config("float64")).precision == "float64"


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="precision must be one of auto, bf16, float32, float64"):
        untrained().evaluate(TEXT, precision="float16")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inference_in_another_dtype_is_that_of_the_converted_model(dtype):
    model, converted = untrained(dtype="float64" if dtype == "float32" else "float32"), None
    converted = model.astype(dtype)
    assert converted.parameters.flat.dtype == dtype
    assert model.evaluate(TEXT[:99], precision=dtype) == converted.evaluate(TEXT[:99])
    assert model.evaluate(TEXT[:99], precision=dtype) != model.evaluate(TEXT[:99])
    assert model.sample(length=50, precision=dtype) == converted.sample(length=50)
    assert "".join(model.stream(length=50, precision=dtype)) == converted.sample(length=50)
    x = np.zeros((3, 2), np.int32)
    ours, theirs = model.loss_and_grads(x, x, precision=dtype), converted.loss_and_grads(x, x)
    assert ours[0] == theirs[0]
    assert ours[1].flat.tobytes() == theirs[1].flat.tobytes()
    assert ours[2].dtype == dtype


def test_a_conversion_leaves_the_model_as_it_is_and_rounds_to_nearest():
    model = untrained(dtype="float64")
    before, model.training = model.parameters.flat.copy(), {"steps": 1}
    single = model.astype("float32")
    assert np.array_equal(single.parameters.flat, before.astype(np.float32))
    assert np.array_equal(model.parameters.flat, before)
    assert (single.config.dtype, single.training) == ("float32", {"steps": 1})
    same = model.astype("float64")
    same.parameters.flat[:] = 0
    assert np.array_equal(model.parameters.flat, before)


def test_bf16_of_the_reference_is_another_result_near_that_of_float32():
    """All verbs of a model. 2**-8 is the largest relative error of rounding; the loss of a new model moves by less."""
    model, more = untrained(), {"backend": "reference"}
    text = TEXT[:99]
    rounded, exact = (model.evaluate(text, precision=p, **more).nats_per_char for p in ("bf16", "float32"))
    assert 0 < abs(rounded - exact) < 2**-8
    assert len(model.sample(length=9, precision="bf16", **more)) == 9
    assert "".join(model.stream(length=9, precision="bf16", **more)) == model.sample(length=9, precision="bf16", **more)
    x = np.zeros((3, 2), np.int32)
    rounded, exact = (model.loss_and_grads(x, x, precision=p, **more)[1].flat for p in ("bf16", "float32"))
    assert rounded.dtype == np.float32
    assert 0 < np.linalg.norm(rounded - exact) < 2**-5 * np.linalg.norm(exact)


def test_the_precision_in_effect_is_recorded():
    model = untrained()
    trainer = Trainer(model.content, IDS, run_config(steps=3, backend="reference", precision="bf16"))
    trainer.run()
    assert trainer.config.precision == "bf16"
    assert trainer.training["config"]["precision"] == "bf16"
    assert trainer.checkpoint.config.precision == "bf16"
    assert Trainer(model.content, IDS, run_config()).config.precision == "float32"
    assert Trainer(untrained(dtype="float64").content, IDS, run_config()).config.precision == "float64"


def begun(path, **settings):
    """A checkpoint after some steps of a run."""
    trainer = Trainer(untrained().content, IDS, run_config(steps=6, backend="reference", **settings))
    for progress in trainer:
        if progress.step == 3:
            break
    run_checkpoint.write(path, trainer.checkpoint)
    return trainer


def test_a_bf16_run_goes_on_in_bf16_to_the_bytes_of_one_that_never_stopped(tmp_path):
    whole = begun(tmp_path / "run", precision="bf16")
    whole.run()
    for config in (None, run_config(steps=6, backend="reference")):  # auto: that of the run
        resumed = Trainer.resumed(run_checkpoint.read(tmp_path / "run"), VOCAB, IDS, config)
        resumed.run()
        assert resumed.config.precision == "bf16"
        assert resumed.content.parameters.flat.tobytes() == whole.content.parameters.flat.tobytes()
    exact = begun(tmp_path / "exact")
    exact.run()
    assert not np.array_equal(exact.content.parameters.flat, whole.content.parameters.flat)


def test_a_run_does_not_change_its_precision(tmp_path):
    begun(tmp_path / "run", precision="bf16")
    for other in ("float32", "float64"):
        with pytest.raises(ConfigError, match=f"precision of the run is bf16, and cannot become {other}"):
            Trainer.resumed(
                run_checkpoint.read(tmp_path / "run"), VOCAB, IDS, run_config(backend="reference", precision=other)
            )


def test_a_bf16_run_is_not_resumed_by_a_processor_without_bf16(tmp_path, lacking):
    begun(tmp_path / "run", precision="bf16")
    read = run_checkpoint.read(tmp_path / "run")
    fast = dataclasses.replace(read, config=dataclasses.replace(read.config, backend="fast"))
    with pytest.raises(
        ConfigError, match=r"no instructions for bf16 .*, in which the run computes: resume it on one that has them"
    ):
        Trainer.resumed(fast, VOCAB, IDS)


def test_a_checkpoint_of_before_there_was_a_precision_goes_on_in_its_dtype(tmp_path, monkeypatch):
    """Even where `auto` would now choose another one."""
    begun(tmp_path / "run")
    monkeypatch.setattr(precision, "AUTO_BF16_HIDDEN", 0)
    whole = TrainConfig.to_dict

    def without(config):
        return {name: value for name, value in whole(config).items() if name != "precision"}

    read = run_checkpoint.read(tmp_path / "run")
    monkeypatch.setattr(TrainConfig, "to_dict", without)
    run_checkpoint.write(tmp_path / "old", read)
    assert b'"precision"' not in (tmp_path / "old").read_bytes()
    assert run_checkpoint.read(tmp_path / "old").config.precision == "float32"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text(TEXT)
    return tmp_path


def run(verb, *arguments):
    """The status of a verb, and the JSON object that it printed last."""
    return verb.main([*map(str, arguments), "--json"])


def settings_of_run(folder):
    return history.read(folder).settings


@pytest.mark.parametrize(("wanted", "dtype"), [("auto", "float32"), ("bf16", "float32"), ("float64", "float64")])
def test_train_makes_a_model_of_the_precision_and_records_it_everywhere(wanted, dtype, here, capsys):
    assert run(train_verb, "--data", "notes.txt", *QUICK, *REFERENCE, "--precision", wanted) == 0
    recorded = "float32" if wanted == "auto" else wanted
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])["settings"]
    model = Model.load("runs/notes")
    assert model.parameters.flat.dtype == dtype
    assert (shown["precision"], shown["dtype"]) == (recorded, dtype)
    assert model.training["config"]["precision"] == recorded
    assert settings_of_run("runs/notes")["precision"] == recorded
    assert run_checkpoint.read("runs/notes").config.precision == recorded
    assert "dtype" not in settings_of_run("runs/notes")


def test_train_says_that_it_computes_in_bf16(here, capsys):
    quick = [argument for argument in QUICK if argument != "--quiet"]
    for wanted in ("bf16", "float32"):
        assert train_verb.main(["--data", "notes.txt", *quick, *REFERENCE, "--precision", wanted]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("model: "))
        assert line.endswith("characters per step, bf16") == (wanted == "bf16")


def test_the_configuration_of_a_run_repeats_its_precision_unless_another_is_given(here, capsys):
    assert run(train_verb, "--data", "notes.txt", *QUICK, *REFERENCE, "--precision", "bf16") == 0
    for n, more in ((2, []), (3, ["--precision", "float64"])):
        assert run(train_verb, "--config", f"runs/notes/{CONFIG}", "--quiet", *more) == 0
        assert settings_of_run(f"runs/notes-{n}")["precision"] == (more or ["bf16"])[-1]
    first, same, other = (Model.load(f"runs/notes{n}").parameters.flat for n in ("", "-2", "-3"))
    assert same.tobytes() == first.tobytes()
    assert other.dtype == np.float64


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_configuration_of_before_there_was_a_precision_means_its_dtype(dtype, here, capsys):
    assert run(train_verb, "--data", "notes.txt", *QUICK, *REFERENCE, "--precision", dtype) == 0
    path = here / "runs" / "notes" / CONFIG
    path.write_text(path.read_text().replace("precision =", "dtype ="))
    assert settings_of_run("runs/notes")["precision"] == dtype
    assert run(train_verb, "--config", path, "--quiet") == 0
    assert Model.load("runs/notes-2").parameters.flat.dtype == dtype
    assert run(train_verb, "--resume", "runs/notes", "--steps", "5", "--quiet") == 0
    assert settings_of_run("runs/notes")["precision"] == dtype
    path.write_text(f'dtype = "{dtype}"\nprecision = "bf16"\n')
    with pytest.raises(ConfigError, match="dtype is the former name of precision"):
        config_file.read(path)


def test_resuming_with_another_precision_is_refused(here, capsys):
    assert run(train_verb, "--data", "notes.txt", *QUICK, *REFERENCE) == 0
    with pytest.raises(ConfigError, match="precision of the run is float32, and cannot become bf16"):
        run(train_verb, "--resume", "runs/notes", "--steps", 5, "--precision", "bf16")
    assert run(train_verb, "--resume", "runs/notes", "--steps", 5, "--precision", "float32", "--quiet") == 0


def test_a_stored_model_is_converted_to_be_trained_further(here, capsys):
    assert run(train_verb, "--data", "notes.txt", *QUICK, *REFERENCE) == 0
    further = ["--init-from", "runs/notes", "--data", "notes.txt", "--steps", 0, "--quiet", *REFERENCE]
    for n, wanted, dtype in ((2, "float64", "float64"), (3, "auto", "float32")):
        assert run(train_verb, *further, "--precision", wanted) == 0
        stored, converted = (Model.load(f"runs/notes{name}").parameters.flat for name in ("", f"-{n}"))
        assert converted.dtype == dtype
        assert np.array_equal(converted, stored)


@pytest.mark.parametrize("wanted", ["auto", "bf16", "float32", "float64"])
def test_sample_and_evaluate_report_the_precision_in_effect(wanted, here, capsys):
    untrained().save("model.safetensors")
    for verb, more in ((sample, ["--length", 5]), (evaluate, ["notes.txt"])):
        assert run(verb, "model.safetensors", *more, *REFERENCE, "--precision", wanted) == 0
        shown = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert shown["precision"] == ("float32" if wanted == "auto" else wanted)


@pytest.mark.parametrize("verb", [train_verb, sample, evaluate])
def test_every_verb_refuses_bf16_where_the_processor_lacks_it(verb, here, lacking):
    untrained().save("model.safetensors")
    arguments = {train_verb: ["--data", "notes.txt"], sample: ["model.safetensors"]}
    with pytest.raises(ConfigError, match="no instructions for bf16"):
        verb.main([*arguments.get(verb, ["model.safetensors", "notes.txt"]), "--precision", "bf16"])
    assert not (here / "runs").exists()


@pytest.mark.skipif(not has_bf16("fast"), reason="this processor has no instructions for bf16")
@pytest.mark.parametrize(("given", "said"), [([], True), (["--precision", "float32"], False)])
def test_train_says_that_it_chose_bf16(given, said, here, monkeypatch, capsys):
    monkeypatch.setattr(precision, "AUTO_BF16_HIDDEN", 0)
    run(train_verb, "--data", "notes.txt", "--out", "run", *QUICK[:-1], *given)
    assert ("--precision bf16; options that are given win" in capsys.readouterr().out) == said
