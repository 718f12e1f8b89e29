"""Signals: one line and the usual status from the first import on, no work lost, no change of status at the end."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest
from programs import ENVIRONMENT, QUICK, SIGNALS, TEXT, begun, endless, heed_signals, last_json, python, wait_for

from fastlstm import Model
from fastlstm.terminal import COMPILING

#: Runs at Python's start: sends the process a signal when it imports a module for the first time.
AT_IMPORT = """
import signal, sys
class Finder:
    def find_spec(self, name, *rest):
        if name == {name!r}:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.{signal})
sys.modules.pop({name!r}, None)
sys.meta_path.insert(0, Finder())
"""


def with_customisation(folder, program):
    """An environment in which Python runs ``program`` when it starts."""
    (folder / "sitecustomize.py").write_text(program)
    return ENVIRONMENT | {"PYTHONPATH": f"{folder}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"}


@pytest.fixture
def notes(tmp_path):
    (tmp_path / "notes.txt").write_text(TEXT)
    return tmp_path / "notes.txt"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *((["-m", f"fastlstm.{verb}"], "argparse") for verb in ("train", "gradcheck")),
        (["-m", "fastlstm.train"], "fastlstm.cli"),
        (["-m", "fastlstm"], "fastlstm.cli"),
        (["-m", "fastlstm", "train"], "numpy"),
        (["-c", "from fastlstm.__main__ import main; main()"], "fastlstm.cli"),
    ],
    ids=str,
)
def test_a_signal_during_the_imports_is_one_line(command, name, tmp_path):
    env = with_customisation(tmp_path, AT_IMPORT.format(name=name, signal="SIGINT"))
    done = python(*command, cwd=tmp_path, env=env)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.startswith(b"fastlstm")
    assert done.stderr.count(b"\n") == 1
    assert b"SIGINT" in done.stderr


def test_a_program_that_only_imports_the_library_keeps_its_signals(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import signal, fastlstm, fastlstm.cli\n"
        "fastlstm.Model\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
    )
    done = python("-c", "import mine", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    done = python("-m", "mine", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_package_run_by_python_m_that_imports_the_library_keeps_its_signals(tmp_path):
    """Python imports a package when it searches for its `__main__`, as it imports fastlstm."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("import fastlstm")
    (tmp_path / "mine" / "__main__.py").write_text(
        "import signal\nassert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    done = python("-m", "mine", "fastlstm", "fastlstm.train", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_ignored_signal_stays_ignored(tmp_path):
    """As under ``nohup``."""
    program = (
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "from fastlstm import signals\nsignals.install()\nsignal.raise_signal(signal.SIGTERM)\nprint('here')"
    )
    assert python("-c", program, cwd=tmp_path).stdout == b"here\n"


@pytest.mark.parametrize("verb", ["sample", "evaluate"])
def test_a_signal_ends_the_other_verbs_at_once(verb, run_folder, tmp_path):
    (tmp_path / "long.txt").write_text("The sea was loud.\n" * 1_000_000)
    arguments = ["--length", 10**9] if verb == "sample" else ["long.txt"]
    with begun("-m", f"fastlstm.{verb}", run_folder, *arguments, cwd=tmp_path) as process:
        if verb == "sample":
            process.stdout.read(10)
        else:
            time.sleep(1.5)  # at an arbitrary point of its work
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (128 + signal.SIGTERM, f"fastlstm {verb}: stopped by SIGTERM\n")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_run_with_its_model_saved(number, tmp_path):
    with begun(*endless("--json", "--out", "run"), cwd=tmp_path) as process:
        wait_for(process, "step")
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + number, "")
    result = last_json(output)
    assert result["model"] == "run/model.safetensors"
    training = Model.load(tmp_path / "run").training
    assert training["steps"] == result["steps"] >= 50
    assert training["finished"] is False


def test_a_signal_while_kernels_are_compiled_replaces_no_model(notes, tmp_path):
    options = ["--data", "notes.txt", "--out", "run", "--precision", "float64"]
    assert python("-m", "fastlstm.train", *QUICK, *options, cwd=tmp_path).returncode == 0
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    env = ENVIRONMENT | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    with begun("-m", "fastlstm.train", *QUICK, *options, "--overwrite", cwd=tmp_path, env=env) as process:
        wait_for(process, COMPILING)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGINT
    assert errors == "fastlstm train: stopped by SIGINT before its first step: nothing is saved\n"
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_a_run_stopped_before_its_first_step_leaves_no_folder(notes, tmp_path):
    env = ENVIRONMENT | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    with begun("-m", "fastlstm.train", *QUICK, "--data", "notes.txt", cwd=tmp_path, env=env) as process:
        wait_for(process, COMPILING)
        assert (tmp_path / "runs" / "notes").is_dir()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 128 + signal.SIGTERM
    assert not (tmp_path / "runs").exists()


#: A program that receives signals at a given stage of a run.
STAGES = """
import contextlib, signal, sys
from fastlstm import signals
signals.install("fastlstm train")
send = signal.raise_signal
with signals.Stop() as stop:
    stop.lost = lambda: "all 3 steps are lost"
    {stage}
    print("saved", flush=True)
sys.exit(stop.status)
"""


@pytest.mark.parametrize(
    ("stage", "status", "saved", "line"),
    [
        ("send(2); assert stop()", 130, True, ""),
        ("send(2); send(15)", 143, False, "fastlstm train: stopped by SIGTERM at once: all 3 steps are lost\n"),
        ("send(2); assert stop(); send(2)", 130, True, ""),
        ("send(2)\n    with stop.saving(): send(2)", 130, True, ""),
        (
            "send(2)\n    with stop.saving(): send(2); send(2)",
            130, False, "fastlstm train: stopped by SIGINT at once: all 3 steps are lost\n",
        ),
        ("stop.done(); send(2)", 0, True, ""),
        ("send(15); stop.done(); send(2)", 143, True, ""),
        ("stop.done(); print('saved', flush=True); send(2); send(2)", 0, True, ""),
    ],
)  # fmt: skip
def test_how_many_signals_a_run_waits_for(stage, status, saved, line, tmp_path):
    done = python("-c", STAGES.format(stage=stage), cwd=tmp_path)
    assert (done.returncode, done.stderr.decode()) == (status, line)
    assert (done.stdout == b"saved\n") is saved


def test_a_late_signal_changes_no_status(notes, tmp_path):
    """After the last line of output, and while the interpreter exits."""
    program = (
        "import atexit, signal\n"
        "from fastlstm import train\n"
        "summarise = train._summarise\n"
        "def late(*arguments):\n"
        "    summarise(*arguments)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "train._summarise = late\n"
        "atexit.register(signal.raise_signal, signal.SIGTERM)\n"
        f"train.cli.run(train.main, {[*QUICK, '--data', 'notes.txt']})"
    )
    done = python("-c", program, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"the model is" in done.stdout


def test_signals_during_the_last_save_wait_for_it(notes, tmp_path):
    program = (
        "import signal\n"
        "from fastlstm import run_folder, train\n"
        "save = run_folder.RunFolder.save\n"
        "def disturbed(*arguments):\n"
        "    if arguments[1].training['finished']:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    return save(*arguments)\n"
        "run_folder.RunFolder.save = disturbed\n"
        f"train.cli.run(train.main, {[*QUICK, '--data', 'notes.txt']})"
    )
    done = python("-c", program, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, b"")
    assert Model.load(tmp_path / "runs" / "notes").training["finished"]


def test_a_late_signal_does_not_change_the_status_of_other_verbs(run_folder, tmp_path):
    program = (
        "import atexit, signal\n"
        "from fastlstm import sample\n"
        "atexit.register(signal.raise_signal, signal.SIGTERM)\n"
        f"sample.cli.run(sample.main, {[str(run_folder), '--length', '9']})"
    )
    done = python("-c", program, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")


def on_terminal(*arguments, cwd):
    """Run a verb as the only process of a terminal; returns the process and the other end of the terminal."""
    ours, its = pty.openpty()

    def own_terminal():
        heed_signals()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=ENVIRONMENT | {"TERM": "xterm"},
        stdin=its, stdout=its, stderr=its, start_new_session=True, preexec_fn=own_terminal,
    )  # fmt: skip
    os.close(its)
    return process, ours


def shown(terminal, until=b""):
    """The output on the terminal, up to some bytes or to the end."""
    output = b""
    while not (until and until in output):
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        output += piece
    return output


def assert_cursor_is_shown(output):
    assert output.rindex(b"\x1b[?25h") > output.rindex(b"\x1b[?25l")
    assert b"Traceback" not in output


@pytest.mark.parametrize("key", [b"\x03", b"\x1c"], ids=repr)
def test_the_cursor_is_shown_again(key, tmp_path):
    process, terminal = on_terminal(*endless("--out", "run"), cwd=tmp_path)
    output = shown(terminal, b"sample at step")
    os.write(terminal, key)
    output += shown(terminal)
    os.close(terminal)
    assert process.wait(timeout=30) == 128 + (signal.SIGINT if key == b"\x03" else signal.SIGQUIT)
    assert_cursor_is_shown(output)


def test_the_cursor_is_shown_again_by_a_run_that_ends_at_once(tmp_path):
    """Two signals before the run polls for the first; the process sends them, as those of a terminal may be merged."""
    program = (
        "import signal\n"
        "from fastlstm import progress, train\n"
        "def end(*arguments):\n"
        "    signal.raise_signal(signal.SIGQUIT)\n"
        "    signal.raise_signal(signal.SIGQUIT)\n"
        "progress.Display.sampled = end\n"
        f"train.cli.run(train.main, {list(map(str, endless('--out', 'run')[2:]))})"
    )
    process, terminal = on_terminal("-c", program, cwd=tmp_path)
    output = shown(terminal)
    os.close(terminal)
    assert process.wait(timeout=30) == 128 + signal.SIGQUIT
    assert b"stopped by SIGQUIT at once" in output
    assert_cursor_is_shown(output)


def test_a_terminal_that_closes_costs_no_work(tmp_path):
    process, terminal = on_terminal(*endless("--out", "run"), cwd=tmp_path)
    shown(terminal, b"sample at step")
    os.close(terminal)
    assert process.wait(timeout=30) == 128 + signal.SIGHUP
    assert Model.load(tmp_path / "run").training["steps"] >= 50
