"""Model files: exact, atomic, and harmless for any contents."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

from fastlstm import Model, ModelConfig, Vocab, atomic, checkpoint, tensor_file
from fastlstm.cells import CELLS
from fastlstm.errors import ModelExistsError, ModelFileError

#: The file's name, which every message contains.
NAMED = r"model\.safetensors"


@pytest.fixture
def model():
    return Model(ModelConfig(3, hidden=2, embedding=2), Vocab.from_text("abc"), seed=1)


@pytest.fixture
def saved(model, tmp_path):
    model.training = {"steps": 7}
    model.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def version_1(model):
    """The bytes of a model file as written by fastlstm 0.1.0."""
    metadata = {
        "format": "fastlstm",
        "version": "1",
        "config": json.dumps(model.config.to_dict()),
        "vocab": model.vocab.to_json(),
        "training": json.dumps(model.training),
    }
    return safetensors.numpy.save(dict(model.parameters), metadata)


def rewrite(path, metadata=None, tensors=None):
    """Replace a file by one of version 1 with some of its metadata or tensors changed (``None``: left out)."""
    with safetensors.safe_open(path, framework="numpy") as stored:
        old = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no dictionary: it cannot be iterated
        new = old | (tensors or {})
        meta = stored.metadata() | {"version": "1", "sha256": None} | (metadata or {})
    kept = {name: tensor for name, tensor in new.items() if tensor is not None}
    path.write_bytes(safetensors.numpy.save(kept, {key: value for key, value in meta.items() if value is not None}))


def refused(path, message=NAMED):
    """Require that a file is refused; returns the message."""
    with pytest.raises(ModelFileError, match=message) as caught:
        Model.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_same(model, other):
    assert other.parameters.flat.tobytes() == model.parameters.flat.tobytes()
    assert (other.config, other.vocab, other.training) == (model.config, model.vocab, model.training)


def config_json(**changes):
    return json.dumps(ModelConfig(3, hidden=2, embedding=2).to_dict() | changes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("text", ["añ🙂\n", b"\x00\xff ab"])
def test_a_model_comes_back_bit_for_bit(dtype, cell, text, tmp_path):
    ref = Model.for_text(text, cell=cell, dtype=dtype, layers=2, hidden=5, embedding=3)
    ref.parameters["output.b"][0] = -0.0
    ref.training = {"steps": 3, "train_nats": 0.1 + 0.2}
    ref.save(tmp_path / "m.safetensors")
    assert_same(ref, Model.load(tmp_path / "m.safetensors"))


def test_a_file_of_version_1_is_read_and_needs_no_checksum(model, tmp_path):
    model.training = {"steps": 3}
    (tmp_path / "m.safetensors").write_bytes(version_1(model))
    assert_same(model, Model.load(tmp_path / "m.safetensors"))


def test_safetensors_reads_a_model_file(saved, model):
    tensors = safetensors.numpy.load_file(saved)
    assert tensors.keys() == model.parameters.keys()
    for name, view in model.parameters.items():
        np.testing.assert_array_equal(tensors[name], view, strict=True)


SAVE = """
import sys
from fastlstm import ModelConfig, Vocab, checkpoint
from fastlstm.params import initialise
import numpy as np
config = ModelConfig(3, hidden=2, embedding=2)
content = checkpoint.Content(config, Vocab.from_text("abc"), initialise(config, np.random.default_rng(1)), {"steps": 7})
checkpoint.save(sys.argv[1], content)
"""


def test_a_model_is_the_same_bytes_at_every_save_in_every_process(saved, tmp_path):
    for name in ("a", "b"):
        Model.load(saved).save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == saved.read_bytes()
    subprocess.run([sys.executable, "-c", SAVE, tmp_path / "c"], check=True, timeout=60)
    assert (tmp_path / "c").read_bytes() == saved.read_bytes()


def test_the_folder_of_a_run_can_be_given_in_place_of_its_model(saved, model):
    assert Model.load(saved.parent).parameters.flat.tobytes() == model.parameters.flat.tobytes()


def test_every_truncation_is_refused(saved, model):
    for data in (saved.read_bytes(), version_1(model)):
        for size in range(len(data)):
            saved.write_bytes(data[:size])
            refused(saved)
        saved.write_bytes(data + b"\0")
        refused(saved)


def test_every_damaged_byte_is_refused_as_damage(saved, rng):
    data = saved.read_bytes()
    for place in range(len(data)):
        for flip in (0x01, 0x20, 0x80, int(rng.integers(1, 256))):
            damaged = bytearray(data)
            damaged[place] ^= flip
            saved.write_bytes(damaged)
            assert "damaged" in refused(saved)


def test_a_checksum_is_verified_in_every_version_and_required_since_version_2(saved):
    data = saved.read_bytes()
    saved.write_bytes(data.replace(b'"version":"2"', b'"version":"1"'))
    refused(saved, "its checksum is wrong")
    saved.write_bytes(data.replace(b'"version":"2"', b'"version":"3"'))
    refused(saved, "its checksum is wrong")
    rewrite(saved, {"version": "2"})
    refused(saved, "has no checksum")
    rewrite(saved, {"version": "1", "sha256": "0" * 64})
    refused(saved, "its checksum is wrong")


def test_the_message_for_a_file_of_a_later_version_is_to_update(saved):
    rewrite(saved, {"version": "3"})
    refused(saved, "'3' of the model format.*update fastlstm")


def test_a_flipped_bit_in_the_header_of_version_1_is_refused_or_leaves_a_model(saved, model):
    data = version_1(model)
    tried = loaded = 0
    for place in range(8 + int.from_bytes(data[:8], "little")):
        for bit in (0, 7):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            saved.write_bytes(damaged)
            tried += 1
            with contextlib.suppress(ModelFileError):  # and no other error
                Model.load(saved)
                loaded += 1
    assert loaded < tried / 4  # flips in the vocabulary, the history and similar parts


@pytest.mark.parametrize(
    "metadata",
    [
        {"format": None},
        {"format": "pt"},
        {"version": None},
        {"version": "3"},
        {"config": None},
        {"vocab": None},
        {"config": "{"},
        {"config": "[]"},
        {"config": "[" * 100_000},
        {"config": "9" * 10_000},
        {"config": config_json(layers=10**12)},
        {"config": config_json(hidden=10**15)},
        {"config": config_json(hidden=3)},
        {"config": config_json(hidden=-1)},
        {"config": config_json(dtype="float64")},
        {"config": config_json(dtype="object")},
        {"config": config_json(cell="rnn")},
        {"config": config_json(cell=["lstm"])},
        {"config": config_json(vocab_size=4)},
        {"config": config_json(forget_bias=float("nan"))},
        {"config": config_json(surprise=1)},
        {"config": "{}"},
        {"vocab": "nonsense"},
        {"vocab": Vocab.from_text("ab").to_json()},
        {"training": "{"},
        {"training": "1"},
    ],
    ids=lambda metadata: str(metadata)[:50],
)
def test_metadata_that_do_not_fit_the_tensors_are_refused(saved, metadata):
    rewrite(saved, metadata)
    refused(saved)


@pytest.mark.parametrize(
    "tensors",
    [
        {"output.b": None},
        {"output.b": np.zeros(4, np.float32)},
        {"output.b": np.zeros((3, 1), np.float32)},
        {"output.b": np.zeros(3, np.float64)},
        {"output.b": np.zeros(3, np.int32)},
        {"extra": np.zeros(3, np.float32)},
        {"output.b": None, "extra": np.zeros(3, np.float32)},
    ],
    ids=str,
)
def test_tensors_that_do_not_fit_the_configuration_are_refused(saved, tensors):
    rewrite(saved, tensors=tensors)
    refused(saved)


def with_header(data, change):
    """A file of version 1 whose header has been changed."""
    size = int.from_bytes(data[:8], "little")
    header = change(json.loads(data[8 : 8 + size]))
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def with_claim(name, **claims):
    return lambda header: header | {name: header[name] | claims}


@pytest.mark.parametrize(
    "change",
    [
        with_claim("output.b", data_offsets=[0, 12]),
        with_claim("output.b", data_offsets=[-12, 0]),
        with_claim("output.b", data_offsets=[10**18, 10**18 + 12]),
        with_claim("output.b", data_offsets=[0]),
        with_claim("output.b", data_offsets={"0": 1}),
        with_claim("output.b", data_offsets=[0.0, 12.0]),
        with_claim("output.b", shape=[[[3]]]),
        with_claim("output.b", dtype=["F32"]),
        lambda header: header | {"output.b": None},
        lambda header: header | {"output.b": "x" * 100_000},
        lambda header: header | {"__metadata__": None},
        lambda header: header | {"__metadata__": header["__metadata__"] | {"config": 1}},
        lambda header: [header],
        lambda header: b"[" * 100_000,
        lambda header: b"\xff" * 1000,
        lambda header: json.dumps(header).encode("utf-16"),
    ],
)
def test_a_header_that_does_not_match_its_tensors_is_refused_in_one_short_line(saved, model, change):
    saved.write_bytes(with_header(version_1(model), lambda header: header))
    assert_same(model, Model.load(saved))
    saved.write_bytes(with_header(version_1(model), change))
    assert len(refused(saved)) < 600


def test_a_file_takes_no_more_memory_than_twice_its_own_size(tmp_path):
    path, model = tmp_path / "model.safetensors", Model.for_text("ab", hidden=500)
    size = model.parameters.flat.nbytes
    model.save(path)
    tracemalloc.start()
    try:
        Model.load(path)
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 2.4 * size  # at most two of file, library's copies and parameters at a time, and booleans
        rewrite(
            path, {"config": config_json(vocab_size=2, embedding=64, hidden=20_000), "vocab": model.vocab.to_json()}
        )
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        refused(path)
        _, peak = tracemalloc.get_traced_memory()
        assert peak - before < 2.1 * size  # the file, and the library's copies of its tensors
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 50_000, 500_000])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, size):
    path = tmp_path / "model.safetensors"
    Model.for_text("ab", hidden=100).save(path)
    parse = tensor_file._parse_header
    monkeypatch.setattr(tensor_file, "_parse_header", lambda raw: (os.truncate(path, size), parse(raw))[1])
    refused(path, "changed while it was read")


@pytest.mark.parametrize("call", ["os.stat", "builtins.open"])
def test_a_model_without_read_permission_is_not_reported_as_absent(saved, monkeypatch, call):
    def refuse(*arguments, **settings):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(call, refuse)  # root may read a file of any mode
        for path in (saved, saved.parent):
            with pytest.raises(ModelFileError) as caught:
                Model.load(path)
            assert "(Permission denied): check the file and its permissions" in str(caught.value)
    saved.unlink()
    refused(saved.parent, "there is no model")


def test_a_file_that_is_not_a_model_is_refused(tmp_path):
    for name, content in [("empty", b""), ("text", b"To be, or not to be" * 9), ("pickle", b"\x80\x04K\x01.")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelFileError, match=name):
            Model.load(tmp_path / name)
    for path in (tmp_path / "missing", tmp_path, tmp_path / "text" / "model", "/dev/null", "nul\0"):
        with pytest.raises(ModelFileError):
            Model.load(path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_model_and_nothing_else(saved, model, call, monkeypatch):
    before = saved.read_bytes()
    model.parameters.flat[...] = 0

    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ModelFileError, match="No space left"):
        model.save(saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_a_save_is_on_disk_before_it_replaces_the_old_file(saved, model, monkeypatch):
    events = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("replace"), replace(*paths)))
    monkeypatch.setattr(os, "fsync", lambda file: (events.append("fsync"), fsync(file)))
    model.save(saved)
    assert events == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EACCES])
def test_a_folder_that_cannot_be_synced_can_be_saved_to(model, tmp_path, monkeypatch, number, overwrite):
    fsync = os.fsync

    def sync_files_alone(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync_files_alone)
    model.save(tmp_path / "new", overwrite=overwrite)
    assert_same(model, Model.load(tmp_path / "new"))
    assert os.listdir(tmp_path) == ["new"]


def test_running_out_of_memory_in_a_save_is_a_failed_save(saved, model, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr(checkpoint, "Parameters", lambda *a: (_ for _ in ()).throw(MemoryError("Unable to allocate")))
    with pytest.raises(ModelFileError, match="no memory"):
        model.save(saved)
    assert saved.read_bytes() == before


def test_a_save_that_must_not_overwrite_does_not(saved, model, tmp_path):
    before = saved.read_bytes()
    model.parameters.flat[...] = 0
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    names = sorted(os.listdir(tmp_path))
    for name in ("model.safetensors", "dangling", "folder"):
        with pytest.raises(ModelExistsError, match=f"{name}' already exists"):
            model.save(tmp_path / name, overwrite=False)
    assert saved.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == names
    model.save(tmp_path / "fresh", overwrite=False)
    assert_same(model, Model.load(tmp_path / "fresh"))
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "fresh"])


def test_a_model_that_appears_during_a_save_is_not_replaced(model, tmp_path, monkeypatch):
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (fsync(file), (tmp_path / "m").write_bytes(b"another's")))
    with pytest.raises(ModelExistsError):
        model.save(tmp_path / "m", overwrite=False)
    assert (tmp_path / "m").read_bytes() == b"another's"
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS])
def test_without_hard_links_a_save_still_does_not_overwrite(model, tmp_path, monkeypatch, number):
    def refuse(*paths, **settings):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    model.save(tmp_path / "m", overwrite=False)
    with pytest.raises(ModelExistsError):
        model.save(tmp_path / "m", overwrite=False)
    assert os.listdir(tmp_path) == ["m"]
    assert_same(model, Model.load(tmp_path / "m"))


def test_a_failing_link_is_a_failed_save_and_not_reported_as_an_existing_file(model, tmp_path, monkeypatch):
    def refuse(*paths, **settings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ModelFileError, match="No space left") as caught:
        model.save(tmp_path / "m", overwrite=False)
    assert not isinstance(caught.value, ModelExistsError)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["", "nul\0", "x" * 300])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_path_that_cannot_be_one_is_one_line(model, name, overwrite):
    with pytest.raises(ModelFileError, match=r"^[^\n]*$"):
        model.save(name, overwrite=overwrite)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o664])
def test_a_replaced_file_keeps_its_mode_and_is_never_more_readable(saved, model, monkeypatch, mode):
    saved.chmod(mode)
    fsync, during = os.fsync, []
    monkeypatch.setattr(os, "fsync", lambda file: (during.append(os.fstat(file).st_mode & 0o777), fsync(file)))
    model.save(saved)
    assert saved.stat().st_mode & 0o777 == during[0] == mode


def test_a_new_file_has_the_mode_of_the_umask(model, tmp_path):
    before = os.umask(0o027)
    try:
        model.save(tmp_path / "m")
    finally:
        os.umask(before)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o640


def test_a_link_s_target_is_replaced_and_the_link_stays(saved, model, tmp_path):
    (tmp_path / "link").symlink_to(saved)
    model.parameters.flat[...] = 1
    model.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert_same(model, Model.load(saved))


# Temporary files of killed writers


KILLED = "import os, signal; os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)" + SAVE


@pytest.mark.parametrize("cleaner", ["save", "check_writable"])
def test_temporary_files_of_a_killed_writer_are_removed_by_the_next(model, tmp_path, cleaner):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "other"], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    left = os.listdir(tmp_path)
    assert len(left) == 1
    assert left[0].endswith(".tmp")
    (tmp_path / ".model.safetensors.01234567.tmp").touch()  # of version 0.1.0
    for name in (".bashrc", ".other.01234567.tmp", "x.tmp"):
        (tmp_path / name).touch()
    if cleaner == "save":
        model.save(tmp_path / checkpoint.FILE_NAME)
    else:
        checkpoint.check_writable(tmp_path)
    assert set(os.listdir(tmp_path)) - {checkpoint.FILE_NAME} == {".bashrc", ".other.01234567.tmp", "x.tmp"}


@pytest.mark.parametrize("mode", [0o644, 0o400])
def test_temporary_files_of_a_killed_writer_are_removed_from_a_network_file_system(tmp_path, monkeypatch, mode):
    flock, temporary = fcntl.flock, tmp_path / ".fastlstm-0123456789abcdef.tmp"
    temporary.touch(mode)

    def flock_of_nfs(file, operation):
        if mode & 0o200 and fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock_of_nfs)
    checkpoint.check_writable(tmp_path)
    assert not temporary.exists()


def test_the_temporary_file_of_an_active_writer_is_not_removed(saved, model, monkeypatch):
    fsync, names = os.fsync, []

    def look(file):
        checkpoint.check_writable(saved.parent)
        names.extend(os.listdir(saved.parent))
        fsync(file)

    monkeypatch.setattr(os, "fsync", look)
    model.save(saved)
    assert sum(name.endswith(".tmp") for name in names) == 1
    assert_same(model, Model.load(saved))


def test_a_writer_whose_file_is_removed_before_it_is_locked_uses_another(saved, model, monkeypatch):
    flock, removed = fcntl.flock, []

    def late(file, operation):
        if not removed:
            removed.append(True)
            atomic.remove_abandoned(saved.parent)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    model.parameters.flat[...] = 1
    model.save(saved)
    assert removed
    assert_same(model, Model.load(saved))
    assert os.listdir(saved.parent) == [saved.name]


def test_many_writers_into_one_folder_do_not_disturb_each_other(model, tmp_path):
    content = checkpoint.Content(model.config, model.vocab, model.parameters, None)
    errors, names = [], [f"{number % 2}.safetensors" for number in range(4)]

    def save(name):
        try:
            for _ in range(25):
                checkpoint.save(tmp_path / name, content)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(os.listdir(tmp_path)) == sorted(set(names))
    for name in names:
        assert_same(model, Model.load(tmp_path / name))


def test_a_file_system_without_locks_can_be_saved_to(model, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    model.save(tmp_path / "m")
    assert os.listdir(tmp_path) == ["m"]


def test_an_unwritable_folder_is_detected_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ModelFileError, match="--out"):
        checkpoint.check_writable(tmp_path / "file" / "run")
    (tmp_path / "run" / checkpoint.FILE_NAME).mkdir(parents=True)
    with pytest.raises(ModelFileError, match="is a folder"):
        checkpoint.check_writable(tmp_path / "run")
    checkpoint.check_writable(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []


def test_a_disk_without_space_for_the_model_is_detected_at_once(tmp_path, monkeypatch):
    def reserve(descriptor, start, size):
        if size > 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    checkpoint.check_writable(tmp_path, 1000)
    with pytest.raises(ModelFileError, match=r"No space left on device.*--out"):
        checkpoint.check_writable(tmp_path, 1001)
    assert os.listdir(tmp_path) == []


# Contents that load would refuse


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(saved, model, value):
    before = saved.read_bytes()
    model.parameters["layers.0.b"][2] = value
    with pytest.raises(ModelFileError, match=r"'layers.0.b' has values that are not finite numbers.*nothing was writ"):
        model.save(saved)
    assert saved.read_bytes() == before
    saved.write_bytes(version_1(model))
    refused(saved, "'layers.0.b' has values that are not finite numbers")


def circular():
    history = {}
    history["again"] = history
    return history


def deep():
    history = {}
    for _ in range(100_000):
        history = {"deeper": history}
    return history


@pytest.mark.parametrize(
    "training",
    [
        {"steps": object()},
        {"steps": np.int64(1)},
        {(1, 2): 3},
        [1],
        "text",
        circular(),
        deep(),
        {"x": "x" * 30_000_000},
    ],
    ids=["object", "numpy", "key", "list", "text", "circular", "deep", "long"],
)
def test_a_history_that_json_cannot_hold_is_not_saved(saved, model, training):
    before = saved.read_bytes()
    model.training = training
    with pytest.raises(ModelFileError, match=r"^cannot save the model to '[^\n]*nothing was written$"):
        model.save(saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_a_configuration_or_vocabulary_that_would_not_be_restored_is_not_saved(saved, model):
    before = saved.read_bytes()
    odd = ModelConfig(3, hidden=2, embedding=2)
    object.__setattr__(odd, "dtype", "float64")
    for content in (
        checkpoint.Content(odd, model.vocab, model.parameters, None),
        checkpoint.Content(model.config, Vocab.from_text("ab"), model.parameters, None),
        checkpoint.Content(ModelConfig(3, hidden=3), model.vocab, model.parameters, None),
    ):
        with pytest.raises(ModelFileError, match="nothing was written"):
            checkpoint.save(saved, content)
    assert saved.read_bytes() == before
