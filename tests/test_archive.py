"""Compressed files: any bytes come back, and a damaged archive is one clear error."""

import base64
import hashlib
import os
import struct

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from fastlstm import Model, archive_file
from fastlstm.archive import _Numbers, chosen, chosen_with_model, compress, decompress, identity
from fastlstm.archive_file import Archive, GivenModel, LearningModel, NewModel, Stored
from fastlstm.config import ModelConfig
from fastlstm.errors import ArchiveError, ConfigError, FastlstmError
from fastlstm.kernels import jit
from fastlstm.kernels.host import multiply_add
from fastlstm.learning import Learning
from fastlstm.params import Parameters
from fastlstm.spelling import Spelling
from fastlstm.text import Vocab

pytestmark = pytest.mark.usefixtures("share_every_step")

TEXT = "so it goes, and so it went; and where it went nobody knows.\n" * 9
#: Settings of models that are quick.
SHAPE, LEARNING = {"hidden": 6, "embedding": 3}, {"seq_len": 6, "lanes": 2, "replay": 1, "lr": 0.02}
#: Bytes of an archive besides the code, and those of one that stores the file.
HEADER, STORED = 194, 66


def model_of(vocab, **settings):
    """A model that knows how frequent the symbols of the text are, and nothing more."""
    model = Model(ModelConfig(len(vocab), **SHAPE, **settings), vocab)
    counts = np.bincount(Spelling(vocab).spell(TEXT.encode()).symbols, minlength=len(vocab))
    model.parameters["output.b"] = np.log(counts[: len(vocab)] + 0.1)
    return model


MODELS = {
    "characters": model_of(Vocab.from_text(TEXT)),
    "with an escape": model_of(Vocab.from_text(TEXT, escape=True)),
    "float64": model_of(Vocab.from_text(TEXT), dtype="float64", cell="gru", layers=2),
    "bytes": model_of(Vocab.of_bytes()),
    "some bytes": model_of(Vocab(np.array([10, 32, 97], np.uint32), is_bytes=True)),
}
#: The arguments of `compress` besides the bytes.
WAYS = {"new": {"shape": SHAPE, "learning": LEARNING}, "new, chosen": {}} | {
    f"{name}{', learning' * dynamic}": {"model": model.content, "dynamic": dynamic}
    for name, model in MODELS.items()
    for dynamic in (False, True)
}
FILES = {
    "empty": b"",
    "a byte": b"x",
    "the same": b"a" * 900,
    "random": np.random.default_rng(0).bytes(700),
    "text": TEXT.encode(),
    "UTF-8": "Así va → 漢字🎉\r\n".encode() * 20,
    "not UTF-8": TEXT[:300].encode() + b"\xff\xed\xb2\x80\xc3" + "\N{BYTE ORDER MARK}é".encode("utf-16"),
    "binary": struct.pack("<60I", *range(0, 60_000, 1000)) * 2,
}


def there_and_back(data, model=None, **how):
    packed = compress(data, model, **how)
    coding = archive_file.decode(packed).coding
    assert decompress(packed, model) == data
    return packed, coding


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("way", WAYS)
def test_a_file_comes_back(way, file):
    packed, _ = there_and_back(FILES[file], **WAYS[way])
    assert len(packed) <= len(FILES[file]) + STORED


@hypothesis.settings(max_examples=40)
@hypothesis.given(data=strategies.binary(max_size=80), way=strategies.sampled_from([*WAYS]))
def test_any_bytes_come_back(data, way):
    how = WAYS[way]
    there_and_back(data, **how)
    if how.get("model") is None:
        there_and_back(data * 8, **how)  # long enough to be coded


@pytest.mark.parametrize(
    ("way", "kind"),
    [("new", NewModel), ("bytes", GivenModel), ("with an escape", GivenModel), ("bytes, learning", LearningModel)],
)
def test_each_coding_is_used_where_it_is_shorter(way, kind):
    packed, coding = there_and_back(FILES["text"], **WAYS[way])
    assert isinstance(coding, kind)
    assert archive_file.name_of(coding) == kind.__name__.replace("Model", " model").lower()
    assert len(packed) < len(FILES["text"])


def test_what_does_not_become_shorter_is_stored():
    for way in ("new", "bytes", "bytes, learning"):
        packed, coding = there_and_back(FILES["random"], **WAYS[way])
        assert coding == Stored()
        assert len(packed) == len(FILES["random"]) + STORED


@pytest.mark.parametrize("way", ["new", "bytes", "with an escape, learning"])
def test_threads_do_not_matter(way):
    data = TEXT.encode() * 2
    one, two = (compress(data, **WAYS[way], threads=threads) for threads in (1, 2))
    assert one == two
    assert decompress(one, WAYS[way].get("model"), threads=2) == data


def test_lanes_and_lengths_may_be_any():
    for length in (256, 257, 299, 300, 301):
        for lanes in (1, 3, 300):
            data = (b"ab" * 200)[:length]
            there_and_back(data, shape=SHAPE, learning={"seq_len": 7, "lanes": lanes, "replay": 2})
            there_and_back(data, MODELS["bytes"].content, learning={"lanes": lanes})


def test_the_sizes_of_archives_are_as_documented():
    stored, new = compress(b"abc"), compress(b"a" * 2000, **WAYS["new"])
    assert len(stored) == STORED + 3
    assert len(new) == HEADER + len(archive_file.decode(new).code)


@pytest.mark.skipif(jit.DISABLED or multiply_add() == "fast", reason="the bits are those of compiled kernels")
def test_an_archive_of_the_first_version_is_read():
    """It was written when the format was made; it must be read on any machine, by any later version."""
    assert decompress(base64.b85decode(FIRST)) == b"so it goes. " * 40


FIRST = (
    "iAGFQR80*E0Rd?+hG|I?jzG9fH#SRzzct_i00000003Q;mhj({0e_VrPD_e8vPPbRlhphsiXToW6-9J8b*2CS004jj00000000F+"
    "7ytkO000000000000000003-rbZr0t00031000I6000930000000000@IM9s0006200031000jF004Uwu1Dc|ls^Cf00000@IL?m"
    "000006hO_)%*@Qp>_01q7TM1C?>{<>FyfARMLqxk005Gz?A`GK6=@Z)hrFo=L%Ik>VPSFFTemm$UQs`|tOsH%bb(2Xslkd8bX>^-"
    "#w(Ru15^HaW@6uSVa8?3g!IHN656pb6FluZy^LU=M^iIX?iF=x89%5~uy4C=?De>5Juo*arWDyaP22S)90j1BRPjR~wzDCUKHmam"
    "I@9vK68zlG&C8+6MLz"
)


def test_new_numbers_are_nearly_normal_and_always_the_same():
    numbers = _Numbers(0).standard_normal((200, 100))
    # Of 20,000 numbers; four standard errors each.
    assert abs(numbers.mean()) < 4 / 20_000**0.5
    assert abs(numbers.std() - 1) < 4 / 40_000**0.5
    assert hashlib.sha256(numbers.astype("<f8").tobytes()).hexdigest()[:16] == "2e4a1419eee1457d"


# Damage.


def refusal(packed, model=None):
    with pytest.raises(FastlstmError) as raised:
        decompress(packed, model)
    assert "\n" not in str(raised.value)
    assert ": " in str(raised.value)
    return str(raised.value)


#: An archive of each kind, and its model.
ARCHIVES = {
    "stored": (FILES["random"], None, {}),
    "new": (TEXT.encode(), None, WAYS["new"]),
    "given": (TEXT.encode() * 2, MODELS["bytes"].content, {}),
    "learning": (TEXT.encode() * 2, MODELS["with an escape"].content, {"dynamic": True}),
}


@pytest.fixture(scope="module", params=ARCHIVES)
def archive(request):
    data, model, how = ARCHIVES[request.param]
    return compress(data, model, **how), model


def test_a_changed_bit_or_a_lost_end_is_an_error(archive, rng):
    packed, model = archive
    for _ in range(40):
        changed = bytearray(packed)
        changed[rng.integers(len(packed))] ^= 1 << rng.integers(8)
        assert refusal(bytes(changed), model).startswith(("the archive is damaged", "it is no archive"))
        assert refusal(packed[: rng.integers(len(packed))], model)
    assert "checksum is wrong" in refusal(packed + b"\0", model)


def sealed(packed):
    """An archive with the checksum of its content, as only malice would give it."""
    return packed[:10] + hashlib.sha256(packed[:10] + packed[26:]).digest()[:16] + packed[26:]


def test_a_change_with_a_right_checksum_is_an_error_too(archive, rng):
    """Also of a field that does not matter to the file, such as a rate that does not act: then the file comes back."""
    packed, model = archive
    data = decompress(packed, model)
    refused = 0
    for _ in range(12):
        changed = bytearray(packed)
        changed[rng.integers(8, len(packed))] ^= 1 << rng.integers(8)
        try:
            found = decompress(sealed(bytes(changed)), model)
        except (ArchiveError, ConfigError):
            refused += 1
        else:
            assert found == data
    assert refused > 6


def test_a_malicious_archive_demands_no_more_than_its_length_allows():
    packed = compress(TEXT.encode(), **WAYS["new"])
    known = archive_file.decode(packed)
    for change, message in (
        (lambda a: a._replace(length=1 << 50), "its code cannot be that of 1,125,899,906,842,624 symbols"),
        (lambda a: a._replace(length=0), "its code cannot be that of 0 symbols"),
        (lambda a: a._replace(code=a.code + b"x"), "its code is not in whole words"),
        (lambda a: a._replace(code=b""), "recorded SHA-256|invalid"),
        (with_shape(hidden=8_000), "a new model of .* is larger than"),
        (with_shape(cell="tree"), "cell must be one of"),
        (lambda a: a._replace(coding=a.coding._replace(alphabet=np.zeros(0, np.uint32))), "vocab_size must be"),
        (lambda a: a._replace(coding=Stored()), "it does not have the length that it states"),
        (lambda a: a._replace(sha256=bytes(32)), "recorded SHA-256"),
    ):
        with pytest.raises(ArchiveError, match=message):
            decompress(archive_file.encode(change(known)))


def with_shape(**values):
    return lambda a: a._replace(coding=a.coding._replace(shape=a.coding.shape | values))


def test_malicious_lanes_of_a_given_model_are_refused():
    model = MODELS["bytes"].content
    known = archive_file.decode(compress(TEXT.encode() * 2, model))
    for lanes in (0, 4097, 2**32 - 1):
        changed = known._replace(coding=known.coding._replace(lanes=lanes))
        with pytest.raises(ArchiveError, match=f"it has {lanes:,} lanes"):
            decompress(archive_file.encode(changed), model)


def test_another_program_or_version_is_named():
    packed = compress(b"abc")
    assert "it is no archive" in refusal(b"BZh9" + packed)
    assert "it is no archive" in refusal(b"")
    assert "version 2 of the format, and this fastlstm reads 1: update" in refusal(
        sealed(packed[:8] + b"\2" + packed[9:])
    )
    assert "damaged" in refusal(sealed(packed[:9] + b"\7" + packed[10:]))


def test_the_model_must_be_the_one_that_was_given():
    data, model, other = TEXT.encode() * 2, MODELS["bytes"].content, MODELS["float64"].content
    packed = compress(data, model)
    assert "compressed with a given model" in refusal(packed)
    assert "compressed with another model" in refusal(packed, other)
    assert "compressed without a model" in refusal(compress(data, **WAYS["new"]), model)
    assert decompress(compress(b"stored"), model) == b"stored"
    assert identity(other) == identity(other.astype("float32")) != identity(model)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"dynamic": True}, "a new model always learns"),
        ({"shape": {"hidden": 0}}, "hidden must be"),
        ({"learning": {"lr": -1.0}}, "lr must be"),
        ({"shape": {"hidden": 5000}}, "is larger than"),
        ({"model": MODELS["bytes"].content, "shape": SHAPE}, "hidden cannot be set for a given model"),
        ({"model": MODELS["bytes"].content, "learning": {"lr": 0.1}}, "lr is for a model that learns"),
    ],
)
def test_contradicting_settings_are_refused(how, message):
    with pytest.raises(ConfigError, match=message):
        compress(TEXT.encode(), **how)


def test_what_is_chosen_fits_every_length():
    for length in (0, 1, 300, 30_000, 300_000, 3_000_000, 10**12):
        choice = chosen(length)
        archive_file.check_sizes(NewModel(np.arange(256, dtype=np.uint32), dict(choice.shape), choice.learning).config,
                                 choice.learning.symbols)  # fmt: skip
        assert isinstance(chosen_with_model(length), Learning)


def test_an_archive_is_read_back_as_it_was_written():
    learning = Learning(seed=2**32 - 1, lr=0.1)
    shape = {"cell": "gru", "layers": 2, "hidden": 3, "embedding": 4, "forget_bias": -1.5}
    for coding in (
        Stored(),
        NewModel(np.array([0, 9, 255], np.uint32), shape, learning),
        GivenModel(bytes(32), 9, 3),
        LearningModel(os.urandom(32), 10, learning),
    ):
        written = Archive(10, bytes(range(32)), coding, b"0123456789" if coding == Stored() else b"01234567")
        read = archive_file.decode(archive_file.encode(written))
        assert repr(read) == repr(written)


def test_a_given_model_that_would_take_too_much_memory_is_refused():
    model = MODELS["bytes"].content
    wide = model._replace(config=ModelConfig(256, hidden=600, embedding=3))
    wide = wide._replace(parameters=Parameters(wide.config))
    for learning in ({"seq_len": 4096, "lanes": 16}, {"seq_len": 4096, "lanes": 12, "replay": 4}):
        with pytest.raises(ConfigError, match="steps of 65,536 symbols take too much memory"):
            compress(TEXT.encode(), wide, dynamic=True, learning=learning)
    known = archive_file.decode(compress(TEXT.encode() * 2, model, dynamic=True))
    much = known._replace(coding=LearningModel(identity(wide), 9, Learning(seq_len=4096, lanes=16)))
    with pytest.raises(ConfigError, match="take too much memory"):
        decompress(archive_file.encode(much), wide)
