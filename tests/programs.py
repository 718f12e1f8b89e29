"""Verbs run in separate processes, for several tests."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import fastlstm

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(fastlstm.__file__).parents[1])}
QUICK = ["--hidden", "8", "--embedding", "4", "--steps", "12", "--batch", "4", "--seq-len", "8"]
TEXT = "the cat sat on the mat.\nso did the dog, at last.\n" * 20
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
]  # fmt: skip


def heed_signals():
    """Restore signals from the keyboard, which a shell ignores for background jobs and child processes inherit."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def python(*arguments, cwd, env=ENVIRONMENT, **settings):
    """Run Python until it ends."""
    settings = {"capture_output": True, "timeout": 120, "preexec_fn": heed_signals} | settings
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, env=env, **settings)


@contextlib.contextmanager
def begun(*arguments, cwd, env=ENVIRONMENT, **settings):
    """Start Python; the process is killed at the end of the context if it still runs."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | settings
    command = [sys.executable, *map(str, arguments)]
    with subprocess.Popen(command, cwd=cwd, env=env, preexec_fn=heed_signals, **settings) as process:
        try:
            yield process
        finally:
            process.kill()


def endless(*arguments):
    """Arguments of a run that would take hours, and reports every 50 steps."""
    options = [*QUICK, "--sample-every", 50, "--eval-every", 0, "--steps", 100_000_000]
    return ["-m", "fastlstm.train", *options, *arguments]


def wait_for(process, start):
    """Read standard output up to a line that begins with ``start``."""
    for line in process.stdout:
        if line.startswith(start):
            return
    raise AssertionError(process.stderr.read())


def as_written(text):
    """What `sample` writes of a text, characters or bytes: it ends with a newline."""
    newline = b"\n" if isinstance(text, bytes) else "\n"
    return text if text.endswith(newline) else text + newline


def last_json(output):
    return json.loads(output.splitlines()[-1])
