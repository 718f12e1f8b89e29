"""A run's folder: replaces nothing without permission, no finished model by an unfinished one, and loses no work."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from programs import ENVIRONMENT, QUICK, TEXT, begun, endless, last_json, python, wait_for

from fastlstm import Model, TrainConfig, checkpoint, recovery, run_folder
from fastlstm.errors import ConfigError, ModelFileError
from fastlstm.observers import Progress
from fastlstm.run_folder import RunFolder, Saver
from fastlstm.run_state import RunState


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
    return model.content._replace(training={"steps": steps, "finished": finished})


def steps_of(folder):
    return Model.load(folder).training["steps"]


def test_a_run_uses_the_next_free_folder_and_reports_it(folder, said):
    for number, expected in enumerate(["runs/notes", "runs/notes-2", "runs/notes-3"], start=1):
        with folder() as run:
            assert run.save(trained(number)) == Path(expected, "model.safetensors")
    assert [steps_of(f"runs/notes{n}") for n in ("", "-2", "-3")] == [1, 2, 3]
    assert said == [
        "runs/notes already contains a model: this run is saved to runs/notes-2",
        "runs/notes already contains a model: this run is saved to runs/notes-3",
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


@pytest.mark.parametrize("name", [".", "sub/..", "run"])
def test_a_named_folder_with_a_model_is_refused(name, folder, here):
    Path("sub").mkdir()
    with folder(name, named=True) as run:
        run.save(trained(1))
    with pytest.raises(ConfigError, match="--overwrite"):
        folder(name, named=True)
    with folder(name, named=True, overwrite=True) as run:
        run.save(trained(2))
    assert steps_of(name) == 2


@pytest.mark.parametrize("kind", ["finished", "of version 0.1.0", "unreadable"])
def test_an_unfinished_run_replaces_no_finished_model(kind, folder, here):
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
    assert Path("run/model.safetensors").read_bytes() == before
    assert steps_of("run-2") == 4


def test_an_unfinished_model_may_be_overwritten_by_an_unfinished_one(folder, here):
    for steps in (1, 2):
        with folder("run", named=True, overwrite=True) as run:
            run.save(trained(steps, finished=False))
    assert os.listdir() == ["run"]
    assert steps_of("run") == 2


def test_a_finished_run_overwrites_the_model_and_removes_its_intermediate_save(folder, here):
    for steps in (1, 9):
        with folder("run", named=True, overwrite=True) as run:
            run.save(trained(steps - 1, finished=False))
            run.save(trained(steps))
    assert os.listdir() == ["run"]
    assert steps_of("run") == 9


def test_a_model_that_appears_meanwhile_is_not_replaced(folder, said):
    """Two runs that began at the same time."""
    with folder() as first, folder() as second:
        first.save(trained(1, finished=False))
        assert second.save(trained(2, finished=False)) == Path("runs/notes-2/model.safetensors")
        first.save(trained(3))
        second.save(trained(4))
        shutil.copy("runs/notes-2/model.safetensors", "copy")
        os.replace("copy", "runs/notes/model.safetensors")  # now belongs to another run
        assert first.save(trained(5)) == Path("runs/notes-3/model.safetensors")
    assert len(said) == 2


def test_a_folder_that_was_made_but_not_used_is_removed(folder, here):
    with folder():
        assert Path("runs/notes").is_dir()
    assert os.listdir() == []
    Path("runs").mkdir()
    with folder():
        pass
    assert os.listdir() == ["runs"]


def test_a_removed_folder_is_made_again(folder):
    with folder() as run:
        shutil.rmtree("runs")
        assert run.save_somewhere(trained(1)) == Path("runs/notes/model.safetensors")


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
    with (
        folder("runs/deep/notes") as run,
        pytest.raises(ModelFileError, match=r"full; the model was saved to .* instead$") as e,
    ):
        run.save_somewhere(trained(7))
    path = Path(str(e.value).split("the model was saved to ")[1].removesuffix(" instead"))
    assert path.resolve().is_relative_to(Path(places[usable - 1]).resolve())
    assert steps_of(path) == 7
    assert os.listdir(tmp_path / "home" / "notes") == []


def test_a_model_that_cannot_be_written_anywhere_is_reported_as_lost(folder, monkeypatch, here):
    def full(*arguments, **settings):
        raise ModelFileError("the disk is full")

    with folder() as run:
        run.save(trained(5, finished=False))
        monkeypatch.setattr(checkpoint, "save", full)
        with pytest.raises(
            ModelFileError, match=r"saving to .*home.*temporary.* failed too: the model of step 5 is in runs/notes"
        ):
            run.save_somewhere(trained(7))


def test_a_failing_intermediate_save_is_reported_once(folder, said, monkeypatch):
    monkeypatch.setattr(run_folder, "_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(run_folder, "SAVING_SHARE", 1e9)
    told = []
    with folder() as run:
        saver = Saver(run, 0, run_folder.contextlib.nullcontext, told.append)
        state = RunState.start(trained(0).parameters, batch=1, slots=1)
        progress = Progress(state, total=9, chars_per_step=1)
        saver.started(progress)
        assert saver.lost() is None
        state.step = 3
        assert saver.lost() == "all 3 steps are lost"
        saver.kept(progress, trained(2, finished=False))
        assert "the model of step 2 is in runs/notes/model.safetensors, the 1 steps since" in saver.lost()
        monkeypatch.setattr(checkpoint, "save", lambda *a, **k: (_ for _ in ()).throw(ModelFileError("full")))
        for _ in range(3):
            saver.kept(progress, trained(3, finished=False))
    assert told == ["the run continues, but could not be saved at step 3: full"]


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


#: A run that saves its model as early as possible.
EAGER = "from fastlstm import run_folder, train; run_folder._FIRST_SECONDS = 0; train.cli.run(train.main, {})"


def test_a_killed_run_has_saved_its_model_before(tmp_path):
    arguments = [str(argument) for argument in endless("--out", "run")[2:]]
    with begun("-c", EAGER.format(arguments), cwd=tmp_path) as process:
        model = tmp_path / "run" / "model.safetensors"
        for line in process.stdout:
            if line.startswith("step") and model.exists():
                break
        process.kill()
    training = Model.load(model).training
    assert training["steps"] > 0
    assert training["finished"] is False


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


def test_intermediate_saves_change_no_bit_of_the_result(folder, monkeypatch):
    def fitted(observer=None):
        model = Model.for_text(TEXT, hidden=8, embedding=4)
        model.fit(TEXT, TrainConfig(steps=20, batch=4, seq_len=8, sample_length=0), observer=observer)
        return model

    alone, saves = fitted(), []
    monkeypatch.setattr(recovery, "steps_between", lambda symbols: 1)
    monkeypatch.setattr(run_folder, "SAVING_SHARE", 1e9)
    with folder() as run:
        saver = Saver(run, 0, run_folder.contextlib.nullcontext, saves.append)
        save = run.save
        monkeypatch.setattr(run, "save", lambda model: saves.append(save(model)))
        watched = fitted(saver)
        assert len(saves) > 10
        assert 10 < steps_of("runs/notes") < 20
    assert watched.parameters.flat.tobytes() == alone.parameters.flat.tobytes()
    assert watched.training == alone.training


def test_the_last_model_is_saved_beside_the_best_one(folder):
    with folder() as run:
        path = run.save(trained(5))
        last = run.save_last(trained(7))
    assert last == path.with_name(run_folder.LAST_NAME)
    assert checkpoint.load(last).training["steps"] == 7


def test_the_last_model_is_not_saved_where_the_best_one_is_not(folder):
    with folder() as run:
        assert run.save_last(trained(7)) is None
    assert not list(Path("runs").rglob("*.safetensors"))


def test_a_folder_with_a_last_model_is_taken(folder):
    with folder() as run:
        run.save(trained(5)).unlink()
        Path("runs/notes", run_folder.LAST_NAME).write_bytes(b"a last model")
    with folder() as run:
        assert run.save(trained(6)).parent == Path("runs/notes-2")
    with pytest.raises(ConfigError):
        folder("runs/notes", named=True)
    assert Path("runs/notes", run_folder.LAST_NAME).read_bytes() == b"a last model"


def test_overwriting_a_model_overwrites_or_removes_its_last_one(folder):
    with folder() as run:
        run.save(trained(5))
        run.save_last(trained(7))
    with folder("runs/notes", overwrite=True) as run:
        run.save(trained(8))
        assert run.save_last(None) is None
    assert not Path("runs/notes", run_folder.LAST_NAME).exists()
    Path("runs/notes", run_folder.LAST_NAME).mkdir()
    with folder("runs/notes", overwrite=True) as run:
        run.save(trained(9))
        with pytest.raises(ModelFileError, match="cannot remove"):
            run.save_last(None)


def test_a_folder_lost_during_a_run_costs_no_work(tmp_path):
    with begun(*endless("--out", "run"), cwd=tmp_path) as process:
        wait_for(process, "step")
        shutil.rmtree(tmp_path / "run")
        (tmp_path / "run").write_text("in the way")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert "the model was saved to run-2/model.safetensors instead" in errors
    assert steps_of(tmp_path / "run-2") >= 50


def test_a_file_size_limit_is_reported_with_all_folders_that_were_tried(notes, tmp_path):
    limited = (
        "import resource; from fastlstm import train; fit = train._fit\n"
        "def limit(*a):\n    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); return fit(*a)\n"
        f"train._fit = limit; train.cli.run(train.main, {[*QUICK, '--data', 'notes.txt']})"
    )
    done = python("-c", limited, cwd=tmp_path, env=ENVIRONMENT | {"HOME": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b" failed too: the model is lost" in done.stderr
    assert not (tmp_path / "runs").exists()
