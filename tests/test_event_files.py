"""Event files of TensorBoard: what they say about a run, and that the run neither waits nor ends for them."""

import errno
import struct
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastlstm import event_files
from fastlstm.errors import FastlstmError
from fastlstm.event_files import EventFiles

pytest.importorskip("tensorboardX")


@pytest.fixture
def progress():
    """The progress of a run before its first step."""
    return SimpleNamespace(
        step=0,
        total=100,
        train_nats=2.0,
        rate=0.01,
        norm=0.5,
        chars_per_s=1e6,
        val_nats=None,
        best_nats=None,
        model_step=None,
    )


@pytest.fixture(autouse=True)
def unlimited(monkeypatch):
    """Writing may take any time, so that nothing is left out."""
    monkeypatch.setattr(event_files, "_SHARE", 1e6)


def never(line):
    raise AssertionError(line)


def take_steps(observer, progress, last):
    """Take steps up to ``last``: the training loss is a function of the step, and validations come every 20."""
    while progress.step < last:
        progress.step += 1
        progress.train_nats = 4.0 - progress.step / 100
        observer.stepped(progress)
        if progress.step % 20 == 0:
            progress.val_nats = progress.best_nats = 5.0 - progress.step / 100
            observer.validated(progress)


def events(path):
    """The events of a file, decoded without TensorBoard: length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    data, found = Path(path).read_bytes(), []
    while data:
        (length,) = struct.unpack_from("<Q", data)
        assert struct.unpack_from("<I", data, 8) == (masked_crc32c(data[:8]),)
        assert struct.unpack_from("<I", data, 12 + length) == (masked_crc32c(data[12 : 12 + length]),)
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def scalars(found, tag):
    """Step and value of the events of a tag."""
    return [(event.step, one.simple_value) for event in found for one in event.summary.value if one.tag == tag]


def test_a_run_is_written_as_scalars_and_text(tmp_path, progress):
    with EventFiles(tmp_path / "run" / "tensorboard", never) as observer:
        observer.started(progress)
        take_steps(observer, progress, 40)
        observer.sampled(progress, "# one\n\ttwo \x1b[2J")
        observer.sampled(progress, b"\xff bytes")
    (path,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert "tfevents" in path.name
    found = events(path)
    assert found[0].file_version == "brain.Event:2"
    assert scalars(found, "loss/train") == [(n, pytest.approx(4.0 - n / 100)) for n in range(1, 41)]
    assert (
        scalars(found, "loss/validation")
        == scalars(found, "loss/best")
        == [(20, pytest.approx(4.8)), (40, pytest.approx(4.6))]
    )
    assert {tag: scalars(found, tag)[-1] for tag in ("rate", "norm", "chars_per_s")} == {
        "rate": (40, pytest.approx(0.01)), "norm": (40, 0.5), "chars_per_s": (40, 1e6),
    }  # fmt: skip
    texts = [
        one.tensor.string_val[0].decode()
        for event in found
        for one in event.summary.value
        if one.metadata.plugin_data.plugin_name == "text"
    ]
    assert texts == ["    # one\n    \ttwo \N{REPLACEMENT CHARACTER}[2J", "    \N{REPLACEMENT CHARACTER} bytes"]


def test_tensorboard_reads_it(tmp_path, progress):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with EventFiles(tmp_path, never) as observer:
        observer.started(progress)
        take_steps(observer, progress, 40)
        observer.sampled(progress, "text")
    read = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert set(read.Tags()["scalars"]) == {"loss/train", "loss/validation", "loss/best", "rate", "norm", "chars_per_s"}
    assert [(one.step, one.value) for one in read.Scalars("loss/train")][-1] == (40, pytest.approx(3.6))
    assert [one.step for one in read.Scalars("loss/validation")] == [20, 40]
    assert read.Tensors("sample/text_summary")[0].tensor_proto.string_val == [b"    text"]


@pytest.mark.filterwarnings("ignore")  # of TensorBoard, that events are hidden
def test_tensorboard_hides_steps_that_a_resumed_or_recovered_run_takes_again(tmp_path, progress):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with EventFiles(tmp_path, never) as killed:
        killed.started(progress)
        take_steps(killed, progress, 45)
    progress.step = 30
    with EventFiles(tmp_path, never) as resumed:
        resumed.started(progress)
        take_steps(resumed, progress, 55)
        progress.step = 38
        resumed.recovered(progress, "the loss is NaN")
        take_steps(resumed, progress, 60)
    assert len(list(tmp_path.iterdir())) == 2
    read = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [one.step for one in read.Scalars("loss/train")] == list(range(1, 61))
    assert [one.step for one in read.Scalars("loss/validation")] == [20, 40, 60]


def test_the_last_validation_is_no_point_of_the_curve_if_it_is_of_an_earlier_model(tmp_path, progress):
    with EventFiles(tmp_path, never) as observer:
        observer.started(progress)
        take_steps(observer, progress, 30)
        progress.model_step = 20
        observer.validated(progress)
    (path,) = tmp_path.iterdir()
    assert [step for step, _ in scalars(events(path), "loss/validation")] == [20]
    assert [step for step, _ in scalars(events(path), "loss/best")] == [20, 30]


@pytest.mark.parametrize(("total", "written"), [(999, 999), (1001, 500), (123_456, 995)])
def test_about_a_thousand_training_steps_are_written(total, written, tmp_path, progress):
    progress.total = total
    with EventFiles(tmp_path, never) as observer:
        observer.started(progress)
        take_steps(observer, progress, total)
    (path,) = tmp_path.iterdir()
    assert len(scalars(events(path), "loss/train")) == written


def test_training_steps_are_left_out_while_writing_takes_too_large_a_share(tmp_path, progress, monkeypatch):
    monkeypatch.setattr(event_files, "_SHARE", 1e-9)
    with EventFiles(tmp_path, never) as observer:
        observer.started(progress)
        take_steps(observer, progress, 40)
    (path,) = tmp_path.iterdir()
    assert len(scalars(events(path), "loss/train")) == 0
    assert len(scalars(events(path), "loss/validation")) == 2


def test_events_can_be_read_while_the_run_goes_on(tmp_path, progress, monkeypatch):
    monkeypatch.setattr(event_files, "_FLUSH_SECONDS", 0.0)
    with EventFiles(tmp_path, never) as observer:
        observer.started(progress)
        take_steps(observer, progress, 5)
        (path,) = tmp_path.iterdir()
        assert [step for step, _ in scalars(events(path), "loss/train")] == [1, 2, 3, 4, 5]


def test_a_slow_sync_is_done_less_often(tmp_path, progress, monkeypatch):
    monkeypatch.setattr(event_files, "_FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(event_files, "_SHARE", 0.001)
    synced = []
    monkeypatch.setattr("os.fsync", lambda _: (synced.append(None), time.sleep(0.02)))
    with EventFiles(tmp_path, never) as observer:
        observer.started(progress)
        take_steps(observer, progress, 100)
        assert len(synced) == 1  # the next one is due after 20 s


class FullDisk:
    """A file on a disk that is full after some bytes; like a buffered one, it fails once more when it is closed."""

    def __init__(self, path, size):
        self.left = size

    def write(self, data):
        self.left -= len(data)
        self._check()

    def flush(self):
        self._check()

    def close(self):
        self._check()

    def _check(self):
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("size", [0, 30, 100, 500, 2000])
def test_a_full_disk_is_reported_once_and_ends_no_run(size, tmp_path, progress, monkeypatch):
    said = []
    monkeypatch.setattr("tensorboardX.record_writer.open_file", lambda path: FullDisk(path, size))
    with EventFiles(tmp_path / "tensorboard", said.append) as observer:
        observer.started(progress)
        take_steps(observer, progress, 100)
        observer.sampled(progress, "text")
        observer.recovered(progress, "reason")
    [line] = said
    assert line.startswith("no more events are written to ")
    assert "(No space left on device)" in line
    assert len(line.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_real_file_on_a_full_disk_is_closed_without_an_error(tmp_path, progress, monkeypatch):
    said = []
    monkeypatch.setattr("tensorboardX.record_writer.open_file", lambda path: open("/dev/full", "wb"))  # noqa: SIM115
    with EventFiles(tmp_path, said.append) as observer:
        observer.started(progress)
        take_steps(observer, progress, 100)
    assert len(said) == 1


def test_a_folder_that_cannot_be_made_is_reported_once_and_ends_no_run(tmp_path, progress):
    (tmp_path / "file").touch()
    said = []
    with EventFiles(tmp_path / "file" / "tensorboard", said.append) as observer:
        observer.started(progress)
        take_steps(observer, progress, 30)
    assert len(said) == 1


def test_an_observer_of_no_run_writes_nothing(tmp_path):
    with EventFiles(tmp_path / "tensorboard", never):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_one_line_that_names_the_extra(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboardX"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(FastlstmError, match=r"needs tensorboardX.*pip install 'fastlstm\[tensorboard\]'"):
        EventFiles(tmp_path, never)
