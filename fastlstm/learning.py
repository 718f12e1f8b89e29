"""The settings with which a model learns while it reads: see `fastlstm.dynamic`."""

from __future__ import annotations

import dataclasses

from fastlstm.errors import ConfigError
from fastlstm.optimizers import OPTIMIZERS, UpdateRule
from fastlstm.settings import Settings, documented, setting

#: Bounds of sizes, and of T times all lanes: more is taken to be a mistake, and in a file to be malicious.
_LONGEST, MOST_LANES, _MOST_SYMBOLS = 4096, 4096, 1 << 16

#: Largest seed: it is stored in 32 bits.
_LARGEST_SEED = 2**32 - 1


@documented
@dataclasses.dataclass(frozen=True)
class Learning(Settings):
    """How a model learns while it reads: a step of Adam for each chunk of T symbols in B lanes."""

    seq_len: int = setting(
        20, "characters per sequence, after which the model learns", "learning while reading", unit="T",
        at_least=1, at_most=_LONGEST,
    )  # fmt: skip
    lanes: int = setting(
        1, "parts of the text that are read in parallel", "learning while reading", unit="B",
        at_least=1, at_most=MOST_LANES,
    )  # fmt: skip
    replay: int = setting(
        0, "further lanes of each step, which read earlier parts of the text again", "learning while reading",
        at_least=0, at_most=MOST_LANES,
    )  # fmt: skip
    replay_chunks: int = setting(
        15, "chunks of an earlier part that are read again in a row", "learning while reading", option=None,
        at_least=1, at_most=_LONGEST,
    )  # fmt: skip
    lr: float = setting(1e-3, "learning rate at the start", "learning while reading", at_least=0.0)
    final_rate: float = setting(
        1.0, "learning rate at the end, as a fraction of that at the start; linear between", "learning while reading",
        at_least=0.0, at_most=1.0,
    )  # fmt: skip
    clip_norm: float = setting(5.0, "bound on the norm of the gradient", "learning while reading", above=0.0)
    beta1: float = setting(
        0.9, "decay of the average of the gradients", "learning while reading", at_least=0.0, below=1.0
    )
    beta2: float = setting(
        0.999, "decay of the average of their squares", "learning while reading", at_least=0.0, below=1.0
    )
    eps: float = setting(
        1e-8, "added to the divisor, against division by 0", "learning while reading", option=None, at_least=1e-30
    )
    seed: int = setting(
        0, "seed of a new model, and of the choice of earlier parts", "learning while reading",
        at_least=0, at_most=_LARGEST_SEED,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.symbols > _MOST_SYMBOLS:
            raise ConfigError(
                f"seq_len times lanes and replay must be at most {_MOST_SYMBOLS:,}, not {self.seq_len:,} times"
                f" {self.lanes + self.replay:,}"
            )

    @property
    def symbols(self) -> int:
        """Symbols of a step, replayed ones included."""
        return self.seq_len * (self.lanes + self.replay)

    def rule(self, step: int, done: float) -> UpdateRule:
        """The update of step ``step``, counted from 0, when the fraction ``done`` of the text has been read."""
        rate = self.lr * (1.0 - (1.0 - self.final_rate) * done)
        return OPTIMIZERS["adam"].rule(
            rate, step, clip_norm=self.clip_norm, beta1=self.beta1, beta2=self.beta2, eps=self.eps
        )


#: For a trained model that reads a text in one lane: the rate with the most gain of those in `benchmarks.dynamic`.
TRAINED = Learning(lr=5e-4)
