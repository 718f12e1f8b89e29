"""Certificates come back as they were, belong to the parameters that were checked alone, and do no harm if damaged."""

import dataclasses
import hashlib
import json
import os
import stat

import numba
import numpy as np
import pytest

import fastlstm
from fastlstm import Model, ModelConfig, TrainConfig, Vocab, certificate, checkpoint, gradcheck, tensor_file
from fastlstm.certificate import Certificate, Finding
from fastlstm.errors import ModelFileError, RunInUseError
from fastlstm.lock import Lock
from fastlstm.reference import network

TEXT = "the cat sat on the mat. " * 20

FINDINGS = [Finding("centred differences, fast", 120, 1.5e-9), Finding("fast against reference", 5, 0.0)]

CHECK = {
    "seq_len": 8, "batch": 2, "seed": 2**128 - 1, "per_param": None, "backends": ("fast", "reference"),
    "version": "1.2",
}  # fmt: skip


def certificate_of(parameters, **changes):
    return certificate.of(parameters, FINDINGS, **(CHECK | changes))


@pytest.fixture
def model():
    made = Model.for_text(TEXT, hidden=4, embedding=3, seed=1)
    made.training = {"steps": 7}
    return made


@pytest.fixture
def file(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def stored_metadata(file):
    """The metadata of a model file but its checksum."""
    raw = file.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return {name: value for name, value in header["__metadata__"].items() if name != "sha256"}


def with_metadata(file, text):
    """Replace the certificate in a model file by a text, with a valid checksum."""
    metadata = {name: value for name, value in stored_metadata(file).items() if name not in ("format", "version")}
    parts = tensor_file.encode(checkpoint._KIND, metadata | {"certificate": text}, Model.load(file).parameters)
    tensor_file.write(file, checkpoint._KIND, parts)


def test_a_certificate_comes_back_through_json_as_it_was(model):
    made = certificate_of(model.parameters)
    assert Certificate.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_certifying_adds_the_certificate_and_changes_nothing_else(model, file):
    os.chmod(file, 0o640)
    before = stored_metadata(file)
    made = certificate_of(model.parameters)
    assert checkpoint.certify(file, made) == file
    after = stored_metadata(file)
    assert json.loads(after.pop("certificate")) == json.loads(json.dumps(made.to_dict()))
    assert after == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    loaded = Model.load(file)
    assert loaded.certificate == made
    assert loaded.parameters.flat.tobytes() == model.parameters.flat.tobytes()
    assert os.listdir(file.parent) == [file.name]


def test_a_model_is_saved_with_the_certificate_that_it_was_loaded_with(model, file, tmp_path):
    checkpoint.certify(file, certificate_of(model.parameters))
    Model.load(file).save(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == file.read_bytes()


def test_without_a_certificate_a_file_has_no_entry_for_it(file):
    assert set(stored_metadata(file)) == {"format", "version", "config", "vocab", "training"}
    assert Model.load(file).certificate is None


def changed(parameters):
    parameters.flat[3] = np.nextafter(parameters.flat[3], np.inf, dtype=parameters.flat.dtype)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: (changed(model.parameters), model)[1],
        lambda model: (model.fit(TEXT, TrainConfig(steps=1, batch=2, seq_len=4, backend="reference")), model)[1],
        lambda model: model.astype("float64"),
        lambda model: model.adapted(TEXT + "?"),
    ],
    ids=["one bit", "trained", "converted", "adapted"],
)
def test_a_certificate_is_dropped_when_the_parameters_change(change, model, file, tmp_path):
    checkpoint.certify(file, certificate_of(model.parameters))
    change(Model.load(file)).save(tmp_path / "changed")
    assert "certificate" not in stored_metadata(tmp_path / "changed")


def test_converted_content_has_no_certificate_and_content_of_the_same_dtype_keeps_it(model):
    content = model.content._replace(certificate=certificate_of(model.parameters))
    assert content.astype("float32").certificate == content.certificate
    assert content.astype("float64").certificate is None


def test_a_certificate_of_other_parameters_in_a_file_is_not_believed(model, file):
    changed(model.parameters)
    with_metadata(file, json.dumps(certificate_of(model.parameters).to_dict()))
    assert Model.load(file).certificate is None


def test_a_certificate_tells_float32_from_float64(model):
    assert not certificate_of(model.parameters).is_of(model.parameters.astype("float64"))


DAMAGED = {
    "no JSON": "{",
    "a list": "[]",
    "nothing": "{}",
    "nested": "[" * 100_000,
    "another field": {"more": 1},
    "no hash": {"parameters_sha256": "00"},
    "a number as hash": {"parameters_sha256": 5},
    "escape codes": {"versions": {"fastlstm": "\x1b[2J", "numpy": "2", "numba": "1"}},
    "another library": {"versions": {"fastlstm": "1", "numpy": "2", "numba": "1", "torch": "1"}},
    "no versions": {"versions": None},
    "a negative size": {"seq_len": -1},
    "true as a size": {"batch": True},
    "a fraction": {"per_param": 1.5},
    "no backends": {"backends": []},
    "a number as backends": {"backends": 3},
    "a number as backend": {"backends": [3]},
    "no findings": {"findings": []},
    "many findings": {"findings": [dataclasses.asdict(FINDINGS[0])] * 101},
    "a finding of another kind": {"findings": [3, 4]},
    "a long text": {"findings": [dataclasses.asdict(FINDINGS[0]) | {"check": "a" * 101}] * 2},
    "an error of text": {"findings": [dataclasses.asdict(FINDINGS[0]) | {"worst": "0"}] * 2},
    "an infinite error": {"findings": [dataclasses.asdict(FINDINGS[0]) | {"worst": float("inf")}] * 2},
    "no number as error": {"findings": [dataclasses.asdict(FINDINGS[0]) | {"worst": float("nan")}] * 2},
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_certificate_is_dropped_and_the_model_loads(damage, model, file):
    valid = certificate_of(model.parameters).to_dict()
    with_metadata(file, json.dumps(valid))
    assert Model.load(file).certificate is not None
    with_metadata(file, damage if isinstance(damage, str) else json.dumps(valid | damage))
    assert Model.load(file).certificate is None


def test_a_file_that_has_changed_since_the_check_is_not_certified(model, file):
    made = certificate_of(model.parameters)
    changed(model.parameters)
    model.save(file)
    before = file.read_bytes()
    with pytest.raises(ModelFileError, match="has changed since it was checked: check it again"):
        checkpoint.certify(file, made)
    assert file.read_bytes() == before


def test_a_run_folder_is_certified_by_its_model_unless_a_run_uses_it(model, file):
    made = certificate_of(model.parameters)
    with Lock(file.parent), pytest.raises(RunInUseError, match="wait until it has ended"):
        checkpoint.certify(file.parent, made)
    assert Model.load(file).certificate is None
    assert checkpoint.certify(file.parent, made) == file
    assert Model.load(file.parent).certificate == made


def test_a_folder_that_cannot_be_written_is_named_and_a_copy_advised(model, file, monkeypatch):
    def refused(self):
        raise ModelFileError("choose another with --out")

    monkeypatch.setattr(Lock, "_open", refused)
    before = file.read_bytes()
    with pytest.raises(ModelFileError, match=r"check its permissions, or certify a copy of the model$"):
        checkpoint.certify(file, certificate_of(model.parameters))
    assert file.read_bytes() == before


def test_a_model_behind_a_link_is_certified_where_it_is(model, file, tmp_path):
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(file)
    checkpoint.certify(link, certificate_of(model.parameters))
    assert link.is_symlink()
    assert Model.load(file).certificate is not None


def test_a_certificate_that_could_not_be_read_back_cannot_be_made(model):
    for wrong in (float("nan"), -1.0, 1):
        with pytest.raises(ValueError, match="worst error"):
            Finding("a check", 1, wrong)
    with pytest.raises(ValueError, match="0 backends"):
        certificate_of(model.parameters, backends=())


def test_the_hash_is_that_of_the_bytes_of_all_parameters():
    """The documented definition, computed independently."""
    model = Model(ModelConfig(3, "gru", 2, 2, 2, "float64"), Vocab.from_text("abc"))
    joined = b"".join(view.astype("<f8").tobytes() for view in model.parameters.values())
    assert certificate.sha256_of(model.parameters) == hashlib.sha256(joined).hexdigest()


# The verb.

QUICK = ["--seq-len", "3", "--per-param", "6"]


def test_the_verb_certifies_a_model_that_passes(model, file, capsys):
    assert gradcheck.main(["--model", str(file), "--certify", "--json", *QUICK]) == 0
    *lines, passed, last = capsys.readouterr().out.splitlines()
    assert (lines[-1], passed) == (f"the certificate is in {file}", "PASS")
    result = json.loads(last)
    assert result["certified"] == str(file)
    found = Model.load(file).certificate
    assert (found.seq_len, found.batch, found.seed, found.per_param) == (3, 2, 0, 6)
    assert found.backends == ("fast", "reference")
    assert [finding.worst for finding in found.findings] == [check["worst"] for check in result["checks"]]
    assert len({finding.check for finding in found.findings}) == len(result["checks"])
    entries = sum(row["entries"] for row in result["checks"][0]["parameters"])
    assert found.findings[0].judged == entries > 6
    assert found.versions["fastlstm"] == fastlstm.__version__
    assert found.versions["numba"] == numba.__version__


def test_the_verb_certifies_the_model_of_a_run_folder(file, capsys):
    assert gradcheck.main(["--model", str(file.parent), "--certify", "--backend", "reference", *QUICK]) == 0
    assert Model.load(file).certificate.backends == ("reference",)


def test_a_model_that_fails_is_not_certified_and_its_file_is_unchanged(file, capsys, monkeypatch):
    right = network.backward

    def wrong(parameters, tape, scale, gradients):
        right(parameters, tape, scale, gradients)
        gradients["output.b"] *= 1.001

    monkeypatch.setattr(network, "backward", wrong)
    before = file.read_bytes(), file.stat().st_mtime_ns
    assert gradcheck.main(["--model", str(file), "--certify", "--json", "--backend", "reference", *QUICK]) == 1
    *_, said, failed, last = capsys.readouterr().out.splitlines()
    assert (said, failed) == (f"{file} is not certified, and unchanged", "FAIL")
    assert json.loads(last)["certified"] is None
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--certify"],
        ["--certify", "--model", "FILE", "--inject", "sign"],
        ["--certify", "--model", "FILE", "--precision", "float32"],
    ],
)
def test_what_cannot_be_certified_is_a_usage_error(arguments, file, capsys):
    with pytest.raises(SystemExit) as end:
        gradcheck.main([str(file) if argument == "FILE" else argument for argument in arguments])
    assert end.value.code == 2
    assert "--certify" in capsys.readouterr().err
    assert Model.load(file).certificate is None


def test_a_model_that_was_not_to_be_certified_is_unchanged(file, capsys):
    before = file.read_bytes(), file.stat().st_mtime_ns
    assert gradcheck.main(["--model", str(file), "--backend", "reference", *QUICK]) == 0
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert "certif" not in capsys.readouterr().out
