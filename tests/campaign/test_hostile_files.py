"""Malicious model files and checkpoints of runs."""

import hashlib
import json
import pickle
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from harness import BrokenPromiseError, Outcome, part, require
from subjects import TEXT

from fastlstm import Model, ModelConfig, TrainConfig, Vocab, run_checkpoint
from fastlstm.errors import ModelFileError
from fastlstm.params import Parameters
from fastlstm.run_state import RunState

#: Memory for reading a hostile file, besides a multiple of its size: the interpreter's caches and small objects.
SPARE_MEMORY = 4 << 20
#: Bytes per byte of JSON: a list of one-digit numbers takes 16 (a pointer, and a digit and a comma of text).
MEMORY_PER_BYTE = 40

CONFIG = ModelConfig(3, hidden=2, embedding=2)


class Layout(NamedTuple):
    """How a valid file of a format is made.

    Attributes
    ----------
    name : of the file.
    read : the function that reads it.
    format, versions : in its metadata; all but the first version need a checksum.
    metadata : its other metadata.
    shapes : of its tensors.
    """

    name: str
    read: Callable[[Any], object]
    format: str
    versions: tuple[str, ...]
    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]

    def plain_metadata(self, rng):
        """Valid metadata, to which `safetensors_file` adds the checksum if the version needs it."""
        return {"format": self.format, "version": str(rng.choice(self.versions)), **self.metadata}

    def plain_entries(self):
        entries, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + 4 * int(np.prod(shape))
            entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}
            start = stop
        return entries

    @property
    def size(self):
        """Bytes of all tensors."""
        return 4 * sum(int(np.prod(shape)) for shape in self.shapes.values())

    @property
    def last(self):
        """The name of the last tensor."""
        return list(self.shapes)[-1]

    def key(self, rng):
        """A key of the metadata whose value is JSON."""
        return str(rng.choice(list(self.metadata)))


def model_layout():
    shapes = {"embedding": (3, 2), "layers.0.W": (4, 8), "layers.0.b": (8,), "output.W": (2, 3), "output.b": (3,)}
    metadata = {"config": json.dumps(CONFIG.to_dict()), "vocab": Vocab.from_text("abc").to_json(), "training": "{}"}
    return Layout("model.safetensors", Model.load, "fastlstm", ("1", "2"), metadata, shapes)


def state_layout():
    state = RunState.start(Parameters(CONFIG), batch=1, slots=1)
    metadata = {
        "config": CONFIG.to_dict(), "state": state.scalars(), "good": state.scalars(), "positions": {},
        "train": TrainConfig(batch=1).to_dict(), "text": {"sha256": "0" * 64, "symbols": 9},
    }  # fmt: skip
    encoded = {name: json.dumps(values) for name, values in metadata.items()}
    encoded["vocab"] = Vocab.from_text("abc").to_json()
    shapes = {name: array.shape for name, array in state.arrays().items()}
    return Layout("last.safetensors", run_checkpoint.read, "fastlstm-run", ("1",), encoded, shapes)


MODEL, STATE = model_layout(), state_layout()


@part("hostile files", full=2_520, small=63)
def test_a_hostile_file_costs_no_more_than_its_size(trials):
    """Any such file gives one clear error, quickly, within memory bounded by the size of the file."""
    trials.run(read_hostile)


def read_hostile(trial):
    layout, attack = ATTACKS[trial.number % len(ATTACKS)]
    content = attack(trial.generator(), layout)
    tracemalloc.start()
    try:
        started = time.monotonic()
        outcome = refused(trial, layout, content, attack.__name__)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    allowed = SPARE_MEMORY + MEMORY_PER_BYTE * len(content)
    require(peak <= allowed, Outcome.WRONG, f"{peak:,} bytes of memory for a file of {len(content):,}")
    require(time.monotonic() - started < 5, Outcome.HANG, "too slow")
    return outcome


def refused(trial, layout, content, what):
    """Read a file that must be refused by one clear line that names it."""
    path = trial.folder / layout.name
    path.write_bytes(content)
    try:
        layout.read(path)
    except ModelFileError as error:
        require("\n" not in str(error) and path.name in str(error), Outcome.WRONG, f"unclear: {error}")
        return Outcome.REFUSED
    raise BrokenPromiseError(Outcome.WRONG, f"it is read: {what} of {layout.format}")


# -- files made by hand ------------------------------------------------------------------------------------------------


def safetensors_file(rng, layout, metadata=None, entries=None, data=None, header=None):
    """A file of these parts, with the checksum that its version needs, so that it is not refused for that alone."""
    metadata = layout.plain_metadata(rng) if metadata is None else metadata
    sealed = isinstance(metadata, dict) and metadata.get("version") == layout.versions[-1]
    entries = layout.plain_entries() if entries is None else entries
    empty_digest = "0" * 64
    if header is None:
        if sealed:
            metadata = metadata | {"sha256": empty_digest}
        header = json.dumps({"__metadata__": metadata} | entries, separators=(",", ":"))
    raw = header.encode()
    raw += b" " * (-len(raw) % 8)
    data = bytes(layout.size) if data is None else data
    content = len(raw).to_bytes(8, "little") + raw + data
    digest = hashlib.sha256(content).hexdigest()
    return content.replace(f'"{empty_digest}"'.encode(), f'"{digest}"'.encode())


def test_the_files_made_by_hand_are_valid_before_they_are_changed(tmp_path, rng):
    for layout in (MODEL, STATE):
        path = tmp_path / layout.name
        path.write_bytes(safetensors_file(rng, layout))
        layout.read(path)


def other_metadata(rng, layout, **changes):
    """A file with changed metadata; ``None`` omits a key."""
    changed = layout.plain_metadata(rng) | changes
    return safetensors_file(rng, layout, {key: value for key, value in changed.items() if value is not None})


def other_config(rng, layout, **changes):
    return other_metadata(rng, layout, config=json.dumps(CONFIG.to_dict() | changes))


def other_entry(rng, layout, **changes):
    entries = layout.plain_entries()
    entries[layout.last] |= changes
    return safetensors_file(rng, layout, entries=entries)


STRANGE = [None, True, -1, 0, 1.5, 1e308, float("nan"), "x", "", [], {}, [1], {"a": 1}, 10**30, -(10**30), 2**63, "\0"]


def strange(rng):
    return STRANGE[rng.integers(len(STRANGE))]


def a_huge_header_length(rng, layout):
    length = int(rng.choice([2**20, 2**31, 2**40, 2**62])) + int(rng.integers(9))
    return length.to_bytes(8, "little") + rng.bytes(int(rng.integers(200)))


def a_header_that_nests_deeply(rng, layout):
    depth = int(rng.integers(1_000, 100_000))
    return safetensors_file(rng, layout, header='{"__metadata__":' + "[" * depth + "]" * depth + "}")


def a_value_that_nests_deeply(rng, layout):
    depth = int(rng.integers(10_000, 200_000))
    opening = str(rng.choice(["[", '{"a":']))
    return other_metadata(rng, layout, **{layout.key(rng): opening * depth})


def a_number_of_many_digits(rng, layout):
    return other_metadata(rng, layout, **{layout.key(rng): "9" * int(rng.integers(5_000, 50_000))})


def a_huge_model(rng, layout):
    field = str(rng.choice(["layers", "hidden", "embedding", "vocab_size"]))
    return other_config(rng, layout, **{field: int(10 ** rng.integers(4, 30))})


def a_setting_of_another_type(rng, layout):
    name = str(
        rng.choice([name for name in CONFIG.to_dict() if name not in ("weight_std", "output_std", "forget_bias")])
    )
    return other_config(rng, layout, **{name: strange(rng)})


def a_number_that_is_none(rng, layout):
    name = str(rng.choice(["weight_std", "output_std", "forget_bias"]))
    return other_config(rng, layout, **{name: [float("nan"), float("inf"), "x", [], True][rng.integers(5)]})


def an_unknown_setting(rng, layout):
    return other_config(
        rng, layout, **{str(rng.choice(["surprise", "", "__class__", "hidden ", "Hidden"])): strange(rng)}
    )


def a_setting_twice(rng, layout):
    config = json.dumps(CONFIG.to_dict())
    return other_metadata(rng, layout, config=config[:-1] + f', "hidden": {rng.integers(3, 99)}}}')


def a_missing_key(rng, layout):
    keys = ["format", "version", *(key for key in layout.metadata if key != "training")]
    return other_metadata(rng, layout, **{str(rng.choice(keys)): None})


def metadata_of_another_type(rng, layout):
    metadata = layout.plain_metadata(rng)
    metadata[str(rng.choice(list(metadata)))] = strange_but_text(rng)
    return safetensors_file(rng, layout, metadata)


def strange_but_text(rng):
    return [value for value in STRANGE if not isinstance(value, str)][rng.integers(len(STRANGE) - 3)]


def another_version(rng, layout):
    version = str(rng.choice(["0", "3", "99", "1.0", " 1", "01", "-1", "x", "", "²", "1\n"]))
    return other_metadata(rng, layout, version=version)


def a_version_without_its_checksum(rng, layout):
    metadata = layout.plain_metadata(rng) | {"version": layout.versions[-1]}
    return safetensors_file(rng, layout, header=json.dumps({"__metadata__": metadata} | layout.plain_entries()))


def a_wrong_checksum(rng, layout):
    digest = str(rng.choice(["f" * 64, "", "0", "A" * 64, "0" * 63, "g" * 64]))
    metadata = layout.plain_metadata(rng) | {"sha256": digest}
    return safetensors_file(rng, layout, header=json.dumps({"__metadata__": metadata} | layout.plain_entries()))


def tensors_that_overlap(rng, layout):
    return other_entry(rng, layout, data_offsets=[0, 12])


def offsets_out_of_the_file(rng, layout):
    start = int(rng.choice([10**3, 2**31, 2**62]))
    return other_entry(rng, layout, data_offsets=[start, start + 12])


def offsets_that_are_none(rng, layout):
    offsets = [[-12, 0], [12, 0], ["0", "12"], [0], [], None, [0, 2**64], [0.5, 12.5]]
    return other_entry(rng, layout, data_offsets=offsets[rng.integers(len(offsets))])


def a_huge_shape(rng, layout):
    shapes = [[2**62, 2**62], [2**64], [-3], [3, 0], [3] * 1_000, "3", None, [3.0]]
    return other_entry(rng, layout, shape=shapes[rng.integers(len(shapes))])


def another_type_of_tensor(rng, layout):
    name = str(rng.choice(["F64", "I32", "BOOL", "U8", "BF16", "F16", "F8_E4M3", "object", "", "f32"]))
    return other_entry(rng, layout, dtype=name)


def a_tensor_under_another_name(rng, layout):
    entries = layout.plain_entries()
    name = str(rng.choice(["extra", "", "layers.1.b", "__metadata", f"{layout.last} "]))
    entries[name] = entries.pop(layout.last)
    return safetensors_file(rng, layout, entries=entries)


def a_tensor_too_many(rng, layout):
    extra = {"extra": {"dtype": "F32", "shape": [1], "data_offsets": [layout.size, layout.size + 4]}}
    return safetensors_file(rng, layout, entries=layout.plain_entries() | extra, data=bytes(layout.size + 4))


def data_too_long_or_too_short(rng, layout):
    return safetensors_file(rng, layout, data=bytes(layout.size + int(rng.choice([-12, -4, -1, 1, 4, 4096]))))


def another_program_s_tensors(rng, layout):
    tensors = {f"layer.{n}": rng.random((3, 2)).astype(np.float32) for n in range(rng.integers(5))}
    return safetensors.numpy.save(tensors, [None, {"format": "pt"}, {"format": "np", "version": "1"}][rng.integers(3)])


class Bomb:
    """An object that raises when it is unpickled."""

    def __reduce__(self):
        return (eval, ("1/0",))


def a_pickle(rng, layout):
    return pickle.dumps([Bomb(), {"config": CONFIG.to_dict()}][rng.integers(2)], protocol=int(rng.integers(6)))


def another_kind_of_file(rng, layout):
    starts = [
        b"",
        b"PK\x03\x04",
        b"\x7fELF",
        b"\x93NUMPY",
        b"{}",
        TEXT.encode(),
        b"\0" * 8,
        b"\x02" + b"\0" * 7 + b"{}",
    ]
    return starts[rng.integers(len(starts))] + rng.bytes(int(rng.choice([0, 1, 100, 10_000])))


def a_header_that_is_not_utf8(rng, layout):
    raw = b'{"__metadata__":{"format":"fast\xff\xfelstm"}}'
    return len(raw).to_bytes(8, "little") + raw


# -- those of models only ----------------------------------------------------------------------------------------------


def a_vocabulary_that_does_not_fit(rng, layout):
    symbols = [[97, 98], [98, 97, 99], [97, 97, 98], [97, 98, 0x110000], [-1, 97, 98], [97, 98, 99.5], ["a", "b", "c"]]
    vocab = {"bytes": False, "symbols": symbols[rng.integers(len(symbols))]}
    return other_metadata(rng, layout, vocab=json.dumps(vocab))


def a_vocabulary_of_other_keys(rng, layout):
    vocabs = [{"symbols": [97, 98, 99]}, {"bytes": 0, "symbols": [97, 98, 99]}, {"bytes": True, "symbols": [1, 2, 300]}]
    return other_metadata(rng, layout, vocab=json.dumps(vocabs[rng.integers(len(vocabs))]))


def a_long_vocabulary(rng, layout):
    symbols = list(range(int(rng.integers(10_000, 90_000))))
    return other_metadata(rng, layout, vocab=json.dumps({"bytes": False, "symbols": symbols}))


def history_that_is_no_object(rng, layout):
    return other_metadata(rng, layout, training=str(rng.choice(["", "{", "1", "[]", '"x"', "null", "nan", "{1}"])))


def weights_that_are_no_numbers(rng, layout):
    values = np.zeros(layout.size // 4, np.float32)
    values[rng.integers(len(values))] = rng.choice([np.nan, np.inf, -np.inf])
    return safetensors_file(rng, layout, data=values.tobytes())


# -- those of checkpoints only ---------------------------------------------------------------------------------------


def other_state(rng, layout, **changes):
    return other_metadata(rng, layout, state=json.dumps(json.loads(layout.metadata["state"]) | changes))


def a_field_of_another_type(rng, layout):
    counts = ["step", "cursor", "recoveries"]
    values = [None, -1, 1.5, "x", "", [], {}, [1], {"a": 1}, -(10**30), "\0", float("nan")]
    return other_state(rng, layout, **{str(rng.choice(counts)): values[rng.integers(len(values))]})


def an_unknown_field(rng, layout):
    name = str(rng.choice(["surprise", "", "__class__", "parameters", "copy", "Step"]))
    return other_state(rng, layout, **{name: strange(rng)})


def a_missing_field(rng, layout):
    state = json.loads(layout.metadata["state"])
    del state[str(rng.choice(list(state)))]
    return other_metadata(rng, layout, state=json.dumps(state))


def a_model(rng, layout):
    return safetensors_file(rng, MODEL)


def a_part_of_another_type(rng, layout):
    """The settings of the run, the identity of the text, the copy to go back to, or the lengths of files."""
    name = str(rng.choice(["train", "text", "good", "positions"]))
    wrong = {
        "train": {"batch": "1"}, "text": {"symbols": "9"}, "good": {"step": "9"}, "positions": {"metrics.jsonl": -1},
    }[name]  # fmt: skip
    if rng.random() < 0.5 and name != "positions":
        wrong = {"another": strange(rng)}
    return other_metadata(rng, layout, **{name: json.dumps(json.loads(layout.metadata[name]) | wrong)})


def slots_that_do_not_fit(rng, layout):
    name = str(rng.choice(["slots", "carried"]))
    shapes = [[], [0], [2**40, 2**40], [2**62, 0], [0, 2**62], [1, 1, 2**62, 0], [2, 1, 1, 3], [[1]], [-1, -1], [True]]
    entries = layout.plain_entries()
    entries[name]["shape"] = shapes[rng.integers(len(shapes))]
    return safetensors_file(rng, layout, entries=entries)


OF_ALL = (
    a_huge_header_length, a_header_that_nests_deeply, a_value_that_nests_deeply, a_number_of_many_digits, a_huge_model,
    a_setting_of_another_type, a_number_that_is_none, an_unknown_setting, a_setting_twice, a_missing_key,
    metadata_of_another_type, another_version, a_version_without_its_checksum, a_wrong_checksum,
    tensors_that_overlap, offsets_out_of_the_file, offsets_that_are_none, a_huge_shape, another_type_of_tensor,
    a_tensor_under_another_name, a_tensor_too_many, data_too_long_or_too_short, another_program_s_tensors, a_pickle,
    another_kind_of_file, a_header_that_is_not_utf8,
)  # fmt: skip
OF_MODELS = (
    a_vocabulary_that_does_not_fit, a_vocabulary_of_other_keys, a_long_vocabulary, history_that_is_no_object,
    weights_that_are_no_numbers,
)  # fmt: skip
OF_STATES = (
    a_field_of_another_type, an_unknown_field, a_missing_field, slots_that_do_not_fit, a_model, a_part_of_another_type,
)  # fmt: skip
ATTACKS = [(MODEL, attack) for attack in OF_ALL + OF_MODELS] + [(STATE, attack) for attack in OF_ALL + OF_STATES]
