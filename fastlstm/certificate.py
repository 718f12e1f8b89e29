"""The certificate of a model: how its gradients were checked and what was found, to be kept in its file.

A certificate states the SHA-256 of the parameters that were checked. It is valid for these alone: whoever reads or
writes it with others drops it, see `Certificate.is_of`. It is no signature: whoever can write the file can write any.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from fastlstm.params import Parameters

#: The libraries whose versions are stated, besides that of fastlstm.
_LIBRARIES = ("numpy", "numba")

_SHA256 = re.compile("[0-9a-f]{64}")

#: Bounds of what is read from a file: characters of a text, and findings.
_LONGEST_TEXT, _MOST_FINDINGS = 100, 100


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check, which passed.

    Attributes
    ----------
    check : its name, and what was checked, as in ``"centred differences, fast"``.
    judged : number of entries, parameters or other numbers that were judged.
    worst : largest relative error among them.

    Raises
    ------
    ValueError
        When a value is of the wrong type, or out of range.
    """

    check: str
    judged: int
    worst: float

    def __post_init__(self) -> None:
        _require_texts(check=self.check)
        _require_numbers(judged=self.judged)
        if not isinstance(self.worst, float) or not (math.isfinite(self.worst) and self.worst >= 0):
            raise ValueError(f"the worst error of a certificate is {self.worst!r}")


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What was checked, and found.

    Attributes
    ----------
    parameters_sha256 : of the parameters, see `sha256_of`.
    versions : of fastlstm and of the libraries that computed, by name.
    seq_len, batch, seed : T, B and the seed of the random symbols at which gradients were checked.
    per_param : number of entries that were checked one by one of each parameter; ``None``: all.
    backends : the implementations that were checked.
    findings : the result of each check.

    Raises
    ------
    ValueError
        When a value is of the wrong type, or out of range.
    """

    parameters_sha256: str
    versions: Mapping[str, str]
    seq_len: int
    batch: int
    seed: int
    per_param: int | None
    backends: tuple[str, ...]
    findings: tuple[Finding, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.parameters_sha256, str) or not _SHA256.fullmatch(self.parameters_sha256):
            raise ValueError("parameters_sha256 of a certificate is not a SHA-256")
        if not isinstance(self.versions, dict) or self.versions.keys() != {"fastlstm", *_LIBRARIES}:
            raise ValueError("a certificate states the versions of other libraries")
        _require_texts(**self.versions)
        _require_numbers(seq_len=self.seq_len, batch=self.batch, seed=self.seed)
        if self.per_param is not None:
            _require_numbers(per_param=self.per_param)
        if not 0 < len(self.backends) <= len(self.findings) <= _MOST_FINDINGS:
            raise ValueError(f"a certificate of {len(self.backends)} backends and {len(self.findings)} checks")
        for backend in self.backends:
            _require_texts(backend=backend)

    def is_of(self, parameters: Parameters) -> bool:
        """Whether the certificate was made for these parameters, bit for bit, in their dtype."""
        return sha256_of(parameters) == self.parameters_sha256

    def lines(self) -> list[str]:
        """What it states, in lines to be read."""
        entries = "all entries" if self.per_param is None else f"{self.per_param:,} entries of each parameter"
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return [
            f"gradients passed, {' and '.join(self.backends)}, with {versions}",
            f"T {self.seq_len:,}, B {self.batch:,}, seed {self.seed}, {entries}",
            *(f"{one.check}: worst error {one.worst:.1e} of {one.judged:,}" for one in self.findings),
        ]

    def to_dict(self) -> dict[str, Any]:
        """The certificate as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`, also after a passage through JSON; safe for untrusted values.

        Raises
        ------
        ValueError
            When the values are not those of a certificate.
        """
        try:
            findings = tuple(Finding(**finding) for finding in values["findings"])
            return cls(**{**values, "findings": findings, "backends": tuple(values["backends"])})
        except (TypeError, KeyError):
            raise ValueError("it is not a certificate: it has other fields") from None


def of(
    parameters: Parameters,
    findings: Sequence[Finding],
    *,
    seq_len: int,
    batch: int,
    seed: int,
    per_param: int | None,
    backends: Sequence[str],
    version: str,
) -> Certificate:
    """The certificate of parameters that passed a check by this ``version`` of fastlstm; see `Certificate`."""
    versions = {"fastlstm": version} | {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return Certificate(
        sha256_of(parameters), versions, seq_len, batch, seed, per_param, tuple(backends), tuple(findings)
    )


def sha256_of(parameters: Parameters) -> str:
    """SHA-256, in hexadecimal, of all parameters in the order of their table, little-endian, in their dtype."""
    flat = parameters.flat
    return hashlib.sha256(flat.astype(flat.dtype.newbyteorder("<"), copy=False).data).hexdigest()


def _require_texts(**values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_TEXT or not value.isprintable():
            raise ValueError(f"{name} of a certificate is not a short text")


def _require_numbers(**values: Any) -> None:
    for name, value in values.items():
        if type(value) is not int or value < 0:
            raise ValueError(f"{name} of a certificate is not a whole number of at least 0")
