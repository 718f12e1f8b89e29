"""fastlstm as a process of `benchmarks.peers`, with the same protocol as its peers."""

from __future__ import annotations

import numba

from benchmarks.networks import Reading, Training, model_of
from benchmarks.protocol import Call, Job, serve
from benchmarks.workloads import SAMPLED
from fastlstm import __version__


def prepare(job: Job) -> Call:
    bf16 = job.precision == "bf16"
    if job.verb == "train":
        return Training(job.workload, threads=job.threads, bf16=bf16).step
    if job.verb == "read":
        return Reading(job.workload, job.threads, bf16=bf16).read
    model, precision = model_of(job.workload), "bf16" if bf16 else "float32"
    return lambda: model.sample(length=SAMPLED, threads=job.threads, precision=precision)


if __name__ == "__main__":
    serve(f"fastlstm {__version__} (numba {numba.__version__})", prepare)
