"""Damaged model files, and malicious model files."""

import hashlib
import json
import pickle
import time
import tracemalloc

import numpy as np
import safetensors.numpy
from damage import damaged
from harness import BrokenPromiseError, Outcome, part, require
from subjects import KINDS, TEXT, file_of

from fastlstm import Model, ModelConfig, Vocab
from fastlstm.errors import ModelFileError

#: Where damage begins: in the length of the header, in the header, in the tensors (most of a real file), anywhere.
REGIONS = ("length", "header", "tensors", "tensors", "anywhere")


@part("damaged models", full=9_981, small=60)
def test_a_damaged_model_is_refused(trials):
    """A file that differs in a single bit from the saved one gives one clear error; no damaged model is used."""
    trials.run(load_damaged)


def load_damaged(trial):
    rng, content = trial.generator(), file_of(trial.number % len(KINDS))
    header_end = 8 + int.from_bytes(content[:8], "little")
    bounds = {"length": (0, 8), "header": (8, header_end), "tensors": (header_end, len(content))}
    start, stop = bounds.get(REGIONS[trial.number % len(REGIONS)], (0, len(content)))
    return refused(trial, damaged(content, rng, start, stop))


def refused(trial, content):
    """Load a file that must be refused by one clear line that names it."""
    path = trial.folder / "model.safetensors"
    path.write_bytes(content)
    try:
        Model.load(path)
    except ModelFileError as error:
        require("\n" not in str(error) and path.name in str(error), Outcome.WRONG, f"unclear: {error}")
        return Outcome.REFUSED
    raise BrokenPromiseError(Outcome.WRONG, "it loads")


#: Memory for reading a hostile file, besides a multiple of its size: the interpreter's caches and small objects.
SPARE_MEMORY = 4 << 20
#: Bytes per byte of JSON: a list of one-digit numbers takes 16 (a pointer, and a digit and a comma of text).
MEMORY_PER_BYTE = 40


@part("hostile models", full=339, small=24)
def test_a_hostile_model_file_costs_no_more_than_its_size(trials):
    """Any such file gives one clear error, quickly, within memory bounded by the size of the file."""
    trials.run(load_hostile)


def load_hostile(trial):
    rng = trial.generator()
    content = HOSTILE[trial.number % len(HOSTILE)](rng)
    tracemalloc.start()
    try:
        started = time.monotonic()
        outcome = refused(trial, content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    allowed = SPARE_MEMORY + MEMORY_PER_BYTE * len(content)
    require(peak <= allowed, Outcome.WRONG, f"{peak:,} bytes of memory for a file of {len(content):,}")
    require(time.monotonic() - started < 5, Outcome.HANG, "too slow")
    return outcome


# -- files made by hand ------------------------------------------------------------------------------------------------

CONFIG = ModelConfig(3, hidden=2, embedding=2)
SHAPES = {"embedding": (3, 2), "layers.0.W": (4, 8), "layers.0.b": (8,), "output.W": (2, 3), "output.b": (3,)}


def plain_metadata(rng):
    """Valid metadata of version 1, or of version 2, to which `safetensors_file` adds the checksum."""
    return {
        "format": "fastlstm",
        "version": str(rng.choice(["1", "2"])),
        "config": json.dumps(CONFIG.to_dict()),
        "vocab": Vocab.from_text("abc").to_json(),
    }


def plain_entries():
    entries, start = {}, 0
    for name, shape in SHAPES.items():
        stop = start + 4 * int(np.prod(shape))
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    return entries


def safetensors_file(rng, metadata=None, entries=None, data=None, header=None):
    """A file of these parts, with the checksum that version 2 requires, so that it cannot be refused for that alone."""
    metadata = plain_metadata(rng) if metadata is None else metadata
    sealed = isinstance(metadata, dict) and metadata.get("version") == "2"
    entries = plain_entries() if entries is None else entries
    empty_digest = "0" * 64
    if header is None:
        if sealed:
            metadata = metadata | {"sha256": empty_digest}
        header = json.dumps({"__metadata__": metadata} | entries)
    raw = header.encode()
    raw += b" " * (-len(raw) % 8)
    data = bytes(4 * sum(int(np.prod(shape)) for shape in SHAPES.values())) if data is None else data
    content = len(raw).to_bytes(8, "little") + raw + data
    digest = hashlib.sha256(content).hexdigest()
    return content.replace(f'"{empty_digest}"'.encode(), f'"{digest}"'.encode())


def other_metadata(rng, **changes):
    """A file with changed metadata; ``None`` omits a key."""
    changed = plain_metadata(rng) | changes
    return safetensors_file(rng, {key: value for key, value in changed.items() if value is not None})


def other_config(rng, **changes):
    return other_metadata(rng, config=json.dumps(CONFIG.to_dict() | changes))


def other_entry(rng, name="output.b", **changes):
    entries = plain_entries()
    entries[name] |= changes
    return safetensors_file(rng, entries=entries)


STRANGE = [None, True, -1, 0, 1.5, 1e308, float("nan"), "x", "", [], {}, [1], {"a": 1}, 10**30, -(10**30), 2**63, "\0"]


def strange(rng):
    return STRANGE[rng.integers(len(STRANGE))]


def a_huge_header_length(rng):
    length = int(rng.choice([2**20, 2**31, 2**40, 2**62])) + int(rng.integers(9))
    return length.to_bytes(8, "little") + rng.bytes(int(rng.integers(200)))


def a_header_that_nests_deeply(rng):
    depth = int(rng.integers(1_000, 100_000))
    return safetensors_file(rng, header='{"__metadata__":' + "[" * depth + "]" * depth + "}")


def a_value_that_nests_deeply(rng):
    depth = int(rng.integers(10_000, 200_000))
    opening = str(rng.choice(["[", '{"a":']))
    return other_metadata(rng, **{str(rng.choice(["config", "vocab", "training"])): opening * depth})


def a_number_of_many_digits(rng):
    return other_metadata(
        rng, **{str(rng.choice(["config", "vocab", "training"])): "9" * int(rng.integers(5_000, 50_000))}
    )


def a_huge_model(rng):
    field = str(rng.choice(["layers", "hidden", "embedding", "vocab_size"]))
    return other_config(rng, **{field: int(10 ** rng.integers(4, 30))})


def a_setting_of_another_type(rng):
    name = str(
        rng.choice([name for name in CONFIG.to_dict() if name not in ("weight_std", "output_std", "forget_bias")])
    )
    return other_config(rng, **{name: strange(rng)})


def a_number_that_is_none(rng):
    name = str(rng.choice(["weight_std", "output_std", "forget_bias"]))
    return other_config(rng, **{name: [float("nan"), float("inf"), "x", [], True][rng.integers(5)]})


def an_unknown_setting(rng):
    return other_config(rng, **{str(rng.choice(["surprise", "", "__class__", "hidden ", "Hidden"])): strange(rng)})


def a_setting_twice(rng):
    config = json.dumps(CONFIG.to_dict())
    return other_metadata(rng, config=config[:-1] + f', "hidden": {rng.integers(3, 99)}}}')


def a_missing_key(rng):
    return other_metadata(rng, **{str(rng.choice(["format", "version", "config", "vocab"])): None})


def metadata_of_another_type(rng):
    metadata = plain_metadata(rng)
    metadata[str(rng.choice(list(metadata)))] = strange_but_text(rng)
    return safetensors_file(rng, metadata)


def strange_but_text(rng):
    return [value for value in STRANGE if not isinstance(value, str)][rng.integers(len(STRANGE) - 3)]


def another_version(rng):
    return other_metadata(rng, version=str(rng.choice(["0", "3", "99", "1.0", " 1", "01", "-1", "x", "", "²", "1\n"])))


def version_2_without_its_checksum(rng):
    header = json.dumps({"__metadata__": plain_metadata(rng) | {"version": "2"}} | plain_entries())
    return safetensors_file(rng, header=header)


def a_wrong_checksum(rng):
    digest = str(rng.choice(["f" * 64, "", "0", "A" * 64, "0" * 63, "g" * 64]))
    metadata = plain_metadata(rng) | {"sha256": digest}
    return safetensors_file(rng, header=json.dumps({"__metadata__": metadata} | plain_entries()))


def a_vocabulary_that_does_not_fit(rng):
    symbols = [[97, 98], [98, 97, 99], [97, 97, 98], [97, 98, 0x110000], [-1, 97, 98], [97, 98, 99.5], ["a", "b", "c"]]
    vocab = {"bytes": False, "symbols": symbols[rng.integers(len(symbols))]}
    return other_metadata(rng, vocab=json.dumps(vocab))


def a_vocabulary_of_other_keys(rng):
    vocabs = [{"symbols": [97, 98, 99]}, {"bytes": 0, "symbols": [97, 98, 99]}, {"bytes": True, "symbols": [1, 2, 300]}]
    return other_metadata(rng, vocab=json.dumps(vocabs[rng.integers(len(vocabs))]))


def a_long_vocabulary(rng):
    return other_metadata(
        rng, vocab=json.dumps({"bytes": False, "symbols": list(range(int(rng.integers(10_000, 90_000))))})
    )


def history_that_is_no_object(rng):
    return other_metadata(rng, training=str(rng.choice(["", "{", "1", "[]", '"x"', "null", "nan", "{1}"])))


def tensors_that_overlap(rng):
    return other_entry(rng, data_offsets=[0, 12])


def offsets_out_of_the_file(rng):
    start = int(rng.choice([10**3, 2**31, 2**62]))
    return other_entry(rng, data_offsets=[start, start + 12])


def offsets_that_are_none(rng):
    return other_entry(
        rng, data_offsets=[[-12, 0], [12, 0], ["0", "12"], [0], [], None, [0, 2**64], [0.5, 12.5]][rng.integers(8)]
    )


def a_huge_shape(rng):
    return other_entry(
        rng, shape=[[2**62, 2**62], [2**64], [-3], [3, 0], [3] * 1_000, "3", None, [3.0]][rng.integers(8)]
    )


def another_type_of_tensor(rng):
    name = str(rng.choice(["F64", "I32", "BOOL", "U8", "BF16", "F16", "F8_E4M3", "object", "", "f32"]))
    return other_entry(rng, dtype=name)


def a_tensor_under_another_name(rng):
    entries = plain_entries()
    entries[str(rng.choice(["extra", "", "layers.1.b", "__metadata", "output.b "]))] = entries.pop("output.b")
    return safetensors_file(rng, entries=entries)


def a_tensor_too_many(rng):
    entries, stop = plain_entries(), plain_entries()["output.b"]["data_offsets"][1]
    entries["extra"] = {"dtype": "F32", "shape": [1], "data_offsets": [stop, stop + 4]}
    return safetensors_file(rng, entries=entries, data=bytes(stop + 4))


def weights_that_are_no_numbers(rng):
    size = plain_entries()["output.b"]["data_offsets"][1] // 4
    values = np.zeros(size, np.float32)
    values[rng.integers(size)] = rng.choice([np.nan, np.inf, -np.inf])
    return safetensors_file(rng, data=values.tobytes())


def data_too_long_or_too_short(rng):
    size = plain_entries()["output.b"]["data_offsets"][1]
    return safetensors_file(rng, data=bytes(size + int(rng.choice([-12, -4, -1, 1, 4, 4096]))))


def another_program_s_tensors(rng):
    tensors = {f"layer.{n}": rng.random((3, 2)).astype(np.float32) for n in range(rng.integers(5))}
    return safetensors.numpy.save(tensors, [None, {"format": "pt"}, {"format": "np", "version": "1"}][rng.integers(3)])


class Bomb:
    """An object that raises when it is unpickled."""

    def __reduce__(self):
        return (eval, ("1/0",))


def a_pickle(rng):
    return pickle.dumps([Bomb(), {"config": CONFIG.to_dict()}][rng.integers(2)], protocol=int(rng.integers(6)))


def another_kind_of_file(rng):
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


def a_header_that_is_not_utf8(rng):
    raw = b'{"__metadata__":{"format":"fast\xff\xfelstm"}}'
    return len(raw).to_bytes(8, "little") + raw


HOSTILE = (
    a_huge_header_length, a_header_that_nests_deeply, a_value_that_nests_deeply, a_number_of_many_digits, a_huge_model,
    a_setting_of_another_type, a_number_that_is_none, an_unknown_setting, a_setting_twice, a_missing_key,
    metadata_of_another_type, another_version, version_2_without_its_checksum, a_wrong_checksum,
    a_vocabulary_that_does_not_fit, a_vocabulary_of_other_keys, a_long_vocabulary, history_that_is_no_object,
    tensors_that_overlap, offsets_out_of_the_file, offsets_that_are_none, a_huge_shape, another_type_of_tensor,
    a_tensor_under_another_name, a_tensor_too_many, weights_that_are_no_numbers, data_too_long_or_too_short,
    another_program_s_tensors, a_pickle, another_kind_of_file, a_header_that_is_not_utf8,
)  # fmt: skip
