"""The columns of `benchmarks.peers`: each a library, its precision and threads. Needs only the standard library."""

from __future__ import annotations

from typing import NamedTuple


class Library(NamedTuple):
    """One column of the results.

    Attributes
    ----------
    field : name of its time in a result.
    label : name in tables and charts.
    colour : in charts.
    peer : the process that runs it, ``benchmarks/peer_NAME.py``.
    verbs : what it is measured for.
    precision : ``"fp32"`` or ``"bf16"``.
    threads : ``None``: those of the measurement.
    variant : a special way to run it; see `benchmarks.protocol.Job`.
    """

    field: str
    label: str
    colour: str
    peer: str
    verbs: tuple[str, ...]
    precision: str = "fp32"
    threads: int | None = None
    variant: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is fastlstm."""
        return self.peer == "fastlstm"

    @property
    def alone_field(self) -> str:
        """The field of the same library with one thread."""
        return f"{self.field.removesuffix('_ms')}_1_thread_ms"


_ALL, _INFERENCE = ("train", "sample", "read"), ("sample", "read")

OURS = Library("ours_ms", "fastlstm", "#d1495b", "fastlstm", _ALL)
OURS_BF16 = Library("ours_bf16_ms", "fastlstm bf16", "#7a1f2e", "fastlstm", _ALL, "bf16")
TORCH = Library("torch_ms", "PyTorch", "#30638e", "torch", _ALL)
TORCH_BF16 = Library("torch_bf16_ms", "PyTorch bf16", "#8fb8de", "torch", _ALL, "bf16")
JAX = Library("jax_ms", "JAX", "#edae49", "jax", ("train",))
ONNX = Library("onnx_ms", "ONNX Runtime", "#5b8e7d", "onnxruntime", _INFERENCE)
ONNX_BOUND = Library("onnx_bound_ms", "ONNX Runtime bound", "#2f4f44", "onnxruntime", ("sample",), variant="bound")


def _alone(library: Library, colour: str) -> Library:
    """The same with one thread, for inference: a single character has little work to share."""
    return library._replace(
        field=library.alone_field, label=f"{library.label}, 1 thread", colour=colour, threads=1,
        verbs=tuple(verb for verb in library.verbs if verb in _INFERENCE),
    )  # fmt: skip


OURS_ALONE = _alone(OURS, "#e8a0aa")
OURS_BF16_ALONE = _alone(OURS_BF16, "#b8707c")
ONNX_ALONE = _alone(ONNX, "#a9cbbf")
ONNX_BOUND_ALONE = _alone(ONNX_BOUND, "#8aa8a0")
TORCH_ALONE = _alone(TORCH, "#7d9cb8")
TORCH_BF16_ALONE = _alone(TORCH_BF16, "#c3d9ee")

#: With all threads, each library followed by the same with one thread.
LIBRARIES = (
    OURS, OURS_ALONE, ONNX, ONNX_ALONE, ONNX_BOUND, ONNX_BOUND_ALONE, TORCH, TORCH_ALONE, JAX,
    OURS_BF16, OURS_BF16_ALONE, TORCH_BF16, TORCH_BF16_ALONE,
)  # fmt: skip


def libraries(verb: str, *, bf16: bool) -> list[Library]:
    """The libraries measured for a verb, with or without those in bf16."""
    return [one for one in LIBRARIES if verb in one.verbs and (bf16 or one.precision == "fp32")]
