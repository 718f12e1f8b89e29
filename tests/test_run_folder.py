"""A run's folder: replaces nothing without permission, no finished run by an unfinished one, and loses no work."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from programs import ENVIRONMENT, QUICK, TEXT, begun, endless, last_json, python, wait_for

from fastlstm import Model, checkpoint
from fastlstm.errors import ConfigError, ModelFileError, RunInUseError
from fastlstm.lock import Lock
from fastlstm.run_folder import FILES, RunFolder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder, and separate folders for home and temporary files."""
    for name in ("here", "home", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "here"


@pytest.fixture
def said():
    return []


@pytest.fixture
def folder(said, here):
    """A function that opens the folder of a run."""

    def open_(name="runs/notes", named=False, overwrite=False):
        return RunFolder(Path(name), named=named, overwrite=overwrite, say=said.append)

    return open_


def trained(steps, finished=True):
    model = Model.for_text("abc", hidden=2, embedding=2)
    return model.content._replace(training={"steps": steps, "model_step": steps, "finished": finished})


def steps_of(folder):
    return Model.load(folder).training["steps"]


def made(run, steps, finished=True):
    """A whole run in a folder: its configuration, another of its files, its model, and its end."""
    run.write_config(f"steps = {steps}\n")
    (run.path / "samples.txt").write_text(f"{steps}\n")
    run.save(trained(steps, finished))
    run.replace(finished=finished)


def test_a_run_uses_the_next_free_folder_and_reports_it(folder, said):
    for number, expected in enumerate(["runs/notes", "runs/notes-2", "runs/notes-3"], start=1):
        with folder() as run:
            assert run.save(trained(number)) == Path(expected, "model.safetensors")
    assert [steps_of(f"runs/notes{n}") for n in ("", "-2", "-3")] == [1, 2, 3]
    assert said == [
        "runs/notes already contains a run: this run is saved to runs/notes-2",
        "runs/notes already contains a run: this run is saved to runs/notes-3",
    ]


@pytest.mark.parametrize("place", ["folder", "dangling link", "file in the folder's place"])
def test_a_file_or_folder_in_place_of_a_model_is_not_changed(place, folder, here):
    Path("runs").mkdir()
    if place == "file in the folder's place":
        Path("runs/notes").write_text("mine")
    else:
        Path("runs/notes").mkdir()
        model = Path("runs/notes/model.safetensors")
        model.mkdir() if place == "folder" else model.symlink_to("nowhere")
    with folder() as run:
        assert run.save(trained(1)) == Path("runs/notes-2/model.safetensors")


@pytest.mark.parametrize("name", FILES)
def test_any_file_of_a_run_occupies_a_folder(name, folder, here):
    Path("run").mkdir()
    Path("run", name).write_text("mine")
    with pytest.raises(ConfigError, match=rf"already contains a run \({name}\): go on with it \(--resume\)"):
        folder("run", named=True)
    assert Path("run", name).read_text() == "mine"
    assert os.listdir("run") == [name]


@pytest.mark.parametrize("name", [".", "sub/..", "run"])
def test_a_named_folder_with_a_run_is_refused_or_overwritten(name, folder, here):
    Path("sub").mkdir()
    with folder(name, named=True) as run:
        made(run, 1)
    with pytest.raises(ConfigError, match="--overwrite"):
        folder(name, named=True)
    with folder(name, named=True, overwrite=True) as run:
        made(run, 2)
    assert steps_of(name) == 2
    assert Path(name, "samples.txt").read_text() == "2\n"
    assert not [path for path in here.parent.iterdir() if path.name.startswith("here-")]


@pytest.mark.parametrize("kind", ["finished", "of version 0.1.0", "unreadable"])
def test_an_unfinished_run_replaces_no_finished_one(kind, folder, here):
    with folder("run", named=True) as run:
        model = trained(100)
        if kind == "of version 0.1.0":
            del model.training["finished"]
            checkpoint.save("run/model.safetensors", model)
        else:
            run.save(model)
        if kind == "unreadable":
            Path("run/model.safetensors").write_bytes(b"damaged")
    before = Path("run/model.safetensors").read_bytes()
    with folder("run", named=True, overwrite=True) as run:
        for steps in (3, 4):
            assert run.save(trained(steps, finished=False)) == Path("run-2/model.safetensors")
        run.replace(finished=False)
    assert Path("run/model.safetensors").read_bytes() == before
    assert steps_of("run-2") == 4


def test_an_unfinished_run_may_be_overwritten_by_an_unfinished_one(folder, here):
    for steps in (1, 2):
        with folder("run", named=True, overwrite=True) as run:
            made(run, steps, finished=False)
    assert os.listdir() == ["run"]
    assert steps_of("run") == 2


def test_the_run_that_is_overwritten_is_whole_until_the_other_ends(folder, here, said):
    with folder("run", named=True) as run:
        made(run, 1)
        Path("run/metrics.jsonl").touch()
    with folder("run", named=True, overwrite=True) as run:
        run.write_config("steps = 9")
        run.save(trained(8, finished=False))
        assert sorted(os.listdir("run")) == ["config.toml", "metrics.jsonl", "model.safetensors", "samples.txt"]
        assert steps_of("run") == 1
        made(run, 9)
    assert os.listdir() == ["run"]
    assert steps_of("run") == 9
    assert sorted(os.listdir("run")) == ["config.toml", "model.safetensors", "samples.txt"]
    assert said == ["run already contains a run: this run is saved to run-2 until it ends"]


def test_a_run_in_use_is_neither_overwritten_nor_joined(folder, here):
    with folder("run", named=True) as run:
        run.write_config("steps = 1")
        for overwrite in (False, True):
            with pytest.raises(RunInUseError, match="in use by another run"):
                folder("run", named=True, overwrite=overwrite)
            run.save(trained(1))
        with pytest.raises(RunInUseError):
            RunFolder.resumed(Path("run"), print)


def test_runs_that_begin_at_the_same_time_use_different_folders(folder):
    with folder() as first, folder() as second:
        assert (first.path, second.path) == (Path("runs/notes"), Path("runs/notes-2"))


def test_a_model_of_another_program_that_appears_meanwhile_is_not_replaced(folder, said):
    with folder() as run:
        run.save(trained(1, finished=False))
        checkpoint.save("copy", trained(7))
        os.replace("copy", "runs/notes/model.safetensors")
        assert run.save(trained(2)) == Path("runs/notes-2/model.safetensors")
    assert steps_of("runs/notes") == 7
    assert "another program" in said[-1]


def test_a_folder_that_was_made_but_not_used_is_removed(folder, here):
    with folder() as run:
        run.write_config("steps = 1\n")
        (run.path / "train.log").touch()
        assert Path("runs/notes/.lock").exists()
    assert os.listdir() == []
    Path("runs").mkdir()
    with folder():
        pass
    assert os.listdir() == ["runs"]


def test_a_removed_folder_is_made_again_with_its_configuration(folder):
    with folder() as run:
        run.write_config("steps = 1\n")
        shutil.rmtree("runs")
        run.save_somewhere(lambda: run.save(trained(1)))
        assert run.model == Path("runs/notes/model.safetensors")
        assert Path("runs/notes/config.toml").read_text() == "steps = 1\n"
        assert run.failure is None


@pytest.mark.parametrize("usable", [1, 2, 3, 4])
def test_a_save_that_fails_goes_to_another_folder_and_reports_it(usable, folder, here, monkeypatch, tmp_path):
    places = ["runs/deep", here, tmp_path / "home", tmp_path / "temporary"]
    bad = [Path(place).resolve() for place in places[: usable - 1]]

    def full(path, content, *, overwrite=True):
        parent = Path(path).resolve().parent.parent
        if parent in bad or Path(path).parent == Path("runs/deep/notes"):
            raise ModelFileError("the disk is full")
        return save(path, content, overwrite=overwrite)

    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", full)
    (tmp_path / "home" / "notes").mkdir()  # an unrelated folder: must not be used
    with folder("runs/deep/notes") as run:
        run.write_config("steps = 7\n")
        run.save_somewhere(lambda: run.save(trained(7)))
        assert str(run.failure).startswith("the disk is full; the run is saved to ")
        assert str(run.path) in str(run.failure)
    assert run.path.resolve().is_relative_to(Path(places[usable - 1]).resolve())
    assert steps_of(run.path) == 7
    assert (run.path / "config.toml").read_text() == "steps = 7\n"
    assert os.listdir(tmp_path / "home" / "notes") == []


def test_runs_that_are_saved_elsewhere_at_the_same_time_use_different_folders(folder, here, monkeypatch):
    """The folder is taken before anything is written to it; a save that fails removes only its own."""

    def fail():
        raise ModelFileError("the disk is full")

    def save_the_other():
        with monkeypatch.context() as context:
            context.setattr(second, "_other_places", lambda: iter([Path("elsewhere")]))
            with pytest.raises(ModelFileError):
                second.save_somewhere(fail)
        first.save(trained(7))

    calls = iter([fail, save_the_other])
    with folder() as first, folder() as second:
        monkeypatch.setattr(first, "_other_places", lambda: iter([Path("elsewhere")]))
        first.save_somewhere(lambda: next(calls)())
    assert steps_of("elsewhere/notes") == 7
    assert os.listdir("elsewhere") == ["notes"]


def test_event_files_go_with_the_run_that_replaces_another(folder, here):
    for number in (1, 2):
        with folder("run", named=True, overwrite=True) as run:
            (run.path / "tensorboard").mkdir()
            (run.path / "tensorboard" / f"events.{number}").touch()
            made(run, number)
    assert os.listdir() == ["run"]
    assert os.listdir("run/tensorboard") == ["events.2"]


def test_a_model_that_cannot_be_written_anywhere_is_reported_as_lost(folder, monkeypatch, here):
    def full(*arguments, **settings):
        raise ModelFileError("the disk is full")

    with folder() as run:
        run.save(trained(5, finished=False))
        monkeypatch.setattr(checkpoint, "save", full)
        with pytest.raises(
            ModelFileError, match=r"saving to .*home.*temporary.* failed too: the model of step 5 is in runs/notes"
        ):
            run.save_somewhere(lambda: run.save(trained(7)))


@pytest.mark.parametrize("found", [[], ["model.safetensors"], ["samples.txt"]])
def test_a_folder_without_a_run_is_not_resumed(found, here):
    Path("run").mkdir()
    for name in found:
        Path("run", name).touch()
    with pytest.raises(ConfigError, match="no run that could be resumed"):
        RunFolder.resumed(Path("run"), print)
    assert os.listdir("run") == found


def test_a_resumed_run_keeps_its_files_even_if_it_saves_nothing(folder, here):
    with folder("run", named=True) as run:
        made(run, 1)
    with RunFolder.resumed(Path("run"), print) as again:
        assert again.path == Path("run")
    assert sorted(os.listdir("run")) == ["config.toml", "model.safetensors", "samples.txt"]
    with RunFolder.resumed(Path("run"), print) as again:
        again.save(trained(2))
    assert steps_of("run") == 2


def test_a_folder_that_cannot_be_replaced_at_the_end_is_reported(folder, here, said):
    with folder("run", named=True) as run:
        made(run, 1)
    with folder("run", named=True, overwrite=True) as run, Lock(Path("run")):
        made(run, 2)
    assert "could not be replaced" in said[-1]
    assert [steps_of(name) for name in ("run", "run-2")] == [1, 2]


@pytest.mark.parametrize("named", [False, True])
def test_files_of_a_killed_run_beside_its_model_are_removed_by_the_next(named, folder):
    for number, name in enumerate(["notes", "notes-2"]):
        Path("runs", name).mkdir(parents=True)
        checkpoint.save(f"runs/{name}/model.safetensors", trained(number, finished=False))
        Path("runs", name, ".fastlstm-0123456789abcdef.tmp").touch()
    if named:
        for name in ("notes", "notes-2"):
            with pytest.raises(ConfigError):
                folder(f"runs/{name}", named=True)
    else:
        with folder() as run:
            run.save(trained(5))
    assert not list(Path("runs").rglob("*.tmp"))
    assert [steps_of("runs/notes"), steps_of("runs/notes-2")] == [0, 1]


@pytest.fixture
def notes(tmp_path):
    (tmp_path / "notes.txt").write_text(TEXT)
    return tmp_path / "notes.txt"


def test_train_replaces_nothing_without_permission(notes, tmp_path):
    def train(*options):
        done = python("-m", "fastlstm.train", *QUICK, "--data", "notes.txt", "--json", *options, cwd=tmp_path)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    assert last_json(train()[1])["model"] == "runs/notes/model.safetensors"
    first = (tmp_path / "runs/notes/model.safetensors").read_bytes()
    output = train("--seed", 1)[1]
    assert last_json(output)["model"] == "runs/notes-2/model.safetensors"
    assert "this run is saved to runs/notes-2" in output
    code, output, errors = train("--out", "runs/notes")
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert "--overwrite" in errors
    assert (tmp_path / "runs/notes/model.safetensors").read_bytes() == first
    assert last_json(train("--overwrite", "--seed", 2)[1])["model"] == "runs/notes/model.safetensors"
    assert (tmp_path / "runs/notes/model.safetensors").read_bytes() != first
    assert sorted(os.listdir(tmp_path / "runs")) == ["notes", "notes-2"]
    assert sorted(os.listdir(tmp_path / "runs/notes")) == sorted(FILES)


def test_a_folder_lost_during_a_run_costs_no_work(tmp_path):
    with begun(*endless("--out", "run"), cwd=tmp_path) as process:
        wait_for(process, "step")
        shutil.rmtree(tmp_path / "run")
        (tmp_path / "run").write_text("in the way")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert "the run is saved to 'run-2' instead" in errors
    assert steps_of(tmp_path / "run-2") >= 50
    assert python("-m", "fastlstm.train", "--resume", "run-2", "--steps", 60, cwd=tmp_path).returncode in (0, 2)


#: Runs train with a limit on the size of files, which it sets when the run has its folder.
LIMITED = """
import resource
from fastlstm import train
run = train._run
def limit(*arguments):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    return run(*arguments)
train._run = limit
train.cli.run(train.main, {})
"""


def test_a_file_size_limit_is_reported_with_all_folders_that_were_tried(notes, tmp_path):
    arguments = [*QUICK, "--data", "notes.txt"]
    done = python("-c", LIMITED.format(arguments), cwd=tmp_path, env=ENVIRONMENT | {"HOME": str(tmp_path)})
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert all(line.startswith("fastlstm train: ") for line in lines)
    assert " failed too: the model is lost" in lines[-1]
    assert not (tmp_path / "runs").exists()
