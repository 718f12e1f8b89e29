"""The workloads, and the number of operations of each. Needs only the standard library."""

from __future__ import annotations

from typing import NamedTuple


class Workload(NamedTuple):
    """Sizes of a model and of one training step (see the legend in `fastlstm.config`), the cell, and its gates G."""

    V: int
    E: int
    H: int
    L: int
    T: int
    B: int
    cell: str = "lstm"
    G: int = 4

    @property
    def chars(self) -> int:
        """Characters that a step reads."""
        return self.T * self.B

    @property
    def forward_flops(self) -> int:
        """Floating-point operations of the products of one character's forward pass; a multiply-add is two.

        The embedding's projection counts as a product, although fastlstm folds it into a table.
        """
        first = self.G * self.H * (self.E + self.H)
        above = (self.L - 1) * self.G * self.H * 2 * self.H
        return 2 * (first + above + self.H * self.V)

    @property
    def train_flops(self) -> int:
        """The same for training: in the backward pass, each product becomes two."""
        return 3 * self.forward_flops

    @property
    def step_flops(self) -> int:
        """Floating-point operations of one training step."""
        return self.train_flops * self.chars


TRAINING = {
    "b1-h32": Workload(V=65, E=4, H=32, L=1, T=64, B=1),
    "b1-h100": Workload(V=65, E=32, H=100, L=1, T=32, B=1),
    "b1-h200": Workload(V=65, E=4, H=200, L=1, T=64, B=1),
    "b50-h128": Workload(V=65, E=64, H=128, L=2, T=50, B=50),
    "b50-h256": Workload(V=65, E=128, H=256, L=1, T=50, B=50),
    "b50-h512": Workload(V=65, E=128, H=512, L=1, T=50, B=50),
    "b50-h512x3": Workload(V=65, E=128, H=512, L=3, T=50, B=50),
    "b64-h1024": Workload(V=65, E=128, H=1024, L=1, T=64, B=64),
}

#: Sizes of models for inference.
_MODELS = {
    "h32": Workload(V=65, E=4, H=32, L=1, T=1, B=1),
    "2x128": Workload(V=65, E=64, H=128, L=2, T=1, B=1),
    "h256": Workload(V=65, E=64, H=256, L=1, T=1, B=1),
    "h512": Workload(V=65, E=64, H=512, L=1, T=1, B=1),
}

#: Workloads for sampling: one character at a time, in one lane.
SAMPLING = {**_MODELS, "3x512": Workload(V=65, E=128, H=512, L=3, T=1, B=1)}

#: Workloads for reading: the loss of a text, in one lane and in 50, in sequences of T characters.
READING = {f"b{B}-{name}": model._replace(T=T, B=B) for T, B in ((256, 1), (64, 50)) for name, model in _MODELS.items()}

#: Characters drawn in one measured call of sampling.
SAMPLED = 200

#: The update rule that every library uses.
LEARNING_RATE = 0.05
CLIP_NORM = 5.0


def workloads(verb: str) -> dict[str, Workload]:
    """The workloads of ``"train"``, ``"sample"`` or ``"read"``, by name."""
    return {"train": TRAINING, "sample": SAMPLING, "read": READING}[verb]


def chars_per_call(verb: str, workload: Workload) -> int:
    """Characters trained on, sampled or read in one measured call."""
    return SAMPLED if verb == "sample" else workload.chars


def flops_per_char(verb: str, workload: Workload) -> int:
    """Floating-point operations per character trained on, sampled or read."""
    return workload.train_flops if verb == "train" else workload.forward_flops
