"""The package as used from Python: the examples of the documents run and do what they state; public names exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastlstm

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def text(default_text):
    return default_text[:4000]


@pytest.fixture
def example(text, tmp_path, monkeypatch):
    """Runs the Python example of a document, and returns the variables that it defines."""
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text(text, encoding="utf-8")

    def run(document):
        (code,) = re.findall(r"^```python\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        names = {}
        exec(compile(code, str(document), "exec"), names)
        return names

    return run


def test_the_example_in_the_readme_runs_and_saves_the_model(example, text):
    model = example(ROOT / "README.md")["model"]
    assert fastlstm.Model.load("model.safetensors").evaluate(text) == model.evaluate(text)


def test_the_longer_example_runs_and_trains_on_the_characters_that_follow(example, text):
    names = example(ROOT / "docs" / "python.md")
    model, x, y = names["model"], names["x"], names["y"]
    stride = (len(text) - 1) // 6
    for lane in range(6):
        start = lane * stride
        assert model.vocab.decode(x[:, lane]) == text[start : start + 20]
        assert model.vocab.decode(y[:, lane]) == text[start + 1 : start + 21]
    assert fastlstm.Model.load("model.safetensors").evaluate(text) == model.evaluate(text)


PUBLIC = """
import sys
import fastlstm
assert not {'numpy', 'numba'} & set(sys.modules)
assert fastlstm.check_gradients(fastlstm.ModelConfig(5, hidden=3, embedding=2), backend="reference").passed
fastlstm.batches.Lanes, fastlstm.trainer.Observer, fastlstm.errors.ModelFileError
fastlstm.progress.observer(sys.stdout), fastlstm.run_folder.RunFolder
assert "fastlstm.cli" not in sys.modules  # the library needs no verb
assert {"checking", "check_gradients", "batches", "Model"} <= set(dir(fastlstm))
"""


def test_modules_can_be_used_after_importing_only_the_package():
    subprocess.run([sys.executable, "-c", PUBLIC], check=True, timeout=120)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'fastlstm' has no attribute 'kernel'"):
        fastlstm.kernel  # noqa: B018
