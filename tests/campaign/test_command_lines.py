"""Random command lines with strange arguments and streams."""

import argparse
import importlib
import subprocess
import sys

from commands import environment, finish, judge, lay_out, models_in, patience, require_kept, require_whole
from harness import Outcome, part, require
from subjects import TEXT

from fastlstm import cli

NUMBERS = [
    "nan", "inf", "-inf", "-1", "0", "-0.0", "1e308", "1e-320", "1e999", "9" * 30, "-" + "9" * 30, "1.5", "0x10", "",
    " ", "many", "½", "٣", "1e", "--", "%00", "\\0", "\N{ZERO WIDTH SPACE}1", "\udcff",
]  # fmt: skip
#: Texts, models and folders, none of which allows writing a model outside the folder of the trial.
PATHS = [
    "notes.txt", "kept", "kept/model.safetensors", "empty.txt", "latin.txt", "damaged.safetensors", "folder", "missing",
    "", ".", "/dev/null", "-", "input", "no\nsuch", "%00", "a" * 300, "\udcff", "~", "kept/model.safetensors/x", "*",
    "--help",
]  # fmt: skip
WORDS = [
    "assignment",
    "lstm",
    "rnn",
    "gru",
    "float32",
    "float16",
    "fast",
    "reference",
    "cosine",
    "",
    "LSTM",
    "\udcff",
    "sign",
]
UNKNOWN = ["--bogus", "--hid", "--no-json", "-x", "--steps=", "--=1", "---", "--seed=1=2", "extra", "@args", "--\n"]
#: First arguments of a verb, which limit its work. Later options take precedence.
SMALL = {
    "train": [
        "--steps=3", "--hidden=4", "--embedding=3", "--batch=2", "--seq-len=8", "--sample-length=5", "--data",
        "notes.txt",
    ],
    "sample": ["kept", "--length=5", "--top-k=9", "--stop=xyz"],
    "evaluate": ["kept", "notes.txt"],
    "score": ["kept", "notes.txt"],
    "compress": ["notes.txt", "--hidden=4", "--embedding=3"],
    "decompress": ["notes.txt"],
    "info": ["kept"],
    "report": ["kept"],
    "gradcheck": ["--hidden=3", "--embedding=2", "--seq-len=3", "--batch=2"],
}  # fmt: skip
#: Redirections with which a shell opens and closes a command's standard streams.
STREAMS = ["", "", "", "", ">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-", "</dev/null", "2>&1", ">/dev/null"]
VARIABLES = [
    {}, {}, {}, {"FASTLSTM_THREADS": "0"}, {"FASTLSTM_THREADS": "many"}, {"FASTLSTM_THREADS": "1"}, {"LC_ALL": "C"},
    {"PYTHONIOENCODING": "ascii"}, {"COLUMNS": "1"}, {"TERM": "dumb", "NO_COLOR": "1"}, {"HOME": "/nowhere"},
]  # fmt: skip


@part("command lines", full=504, small=4, seconds=120)
def test_any_command_line_ends_in_a_known_status_and_at_most_one_line(trials):
    """For any arguments, the status is 0, 1, 2 or 128+n; an error is one line, no traceback; no model is lost."""
    trials.run(run_hostile)


def run_hostile(trial):
    rng = trial.generator()
    lay_out(trial.folder)
    verb = str(rng.choice([*cli.VERBS, *cli.VERBS, "train", "", "fly"]))
    arguments, redirection = hostile_arguments(verb, rng), str(rng.choice(STREAMS))
    program = [sys.executable, *way_to_run(verb, rng), *arguments]
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", *program],
        cwd=trial.folder, env=environment(trial.folder, **VARIABLES[rng.integers(len(VARIABLES))]),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    ended = finish(process, patience(), TEXT.encode() if rng.random() < 0.5 else b"")
    outcome = judge(ended, f"{verb} {arguments} {redirection}")
    if outcome is Outcome.REFUSED and verb and "2>" not in redirection:
        clear = ended.complaints and ended.complaints[0].startswith("fastlstm")
        require(clear, Outcome.WRONG, f"not an error message of fastlstm for {program[1:]}: {ended.errors!r}")
    require_kept(trial.folder)
    made = [path for path in models_in(trial.folder) if path.name != "damaged.safetensors"]
    for path in made:
        require_whole(path)
    if outcome is Outcome.HELD and verb == "train" and "--help" not in arguments:
        require(len(made) > 1, Outcome.LOST, f"status 0, and no model: {arguments}")
    return outcome


def way_to_run(verb, rng):
    """One of the documented ways to run a verb."""
    ways = [["-m", "fastlstm", verb], ["-c", "from fastlstm.cli import main; main()", verb]]
    if verb in cli.VERBS:
        ways += [["-m", f"fastlstm.{verb}"]] * 3
    return [word for word in ways[rng.integers(len(ways))] if word]


def hostile_arguments(verb, rng):
    """Arguments that limit the work, with up to two that may be strange."""
    arguments = list(SMALL.get(verb, []))
    for _ in range(rng.integers(0, 3)):
        arguments += hostile_option(verb, rng)
    if verb in ("sample", "evaluate", "score", "info", "report") and rng.random() < 0.2:
        arguments[0] = str(rng.choice(PATHS))
    if rng.random() < 0.1:
        rng.shuffle(arguments)
    return arguments


def hostile_option(verb, rng):
    if verb not in cli.VERBS or rng.random() < 0.1:
        return [str(rng.choice(UNKNOWN))]
    option = options_of(verb)[rng.integers(len(options_of(verb)))]
    name = option.option_strings[-1]
    if option.nargs == 0:
        return [name]
    if rng.random() < 0.05:
        return [name]  # without its value
    value = str(value_for(option, rng))
    return [f"{name}={value}"] if rng.random() < 0.5 else [name, value]


def options_of(verb):
    """The options that a verb's parser declares, except those for a traceback, a change of a model, or no end."""
    parser = importlib.import_module(f"fastlstm.{verb}").parser()
    return [
        option
        for option in parser._actions
        if option.option_strings and not {"--debug", "--certify", "--follow"} & {*option.option_strings}
    ]


def value_for(option: argparse.Action, rng):
    """A value for an option; half of them are valid, so that the command proceeds and may fail later."""
    plausible = rng.random() < 0.5
    if option.choices:
        return rng.choice(sorted(option.choices) if plausible else WORDS)
    if option.type in (int, float):
        return rng.choice(["1", "2", "3", "7"] if plausible else NUMBERS)
    return rng.choice(["notes.txt", "run"] if plausible else PATHS)
