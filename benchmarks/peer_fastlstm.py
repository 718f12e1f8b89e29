"""fastlstm as a process of `benchmarks.peers`, with the same protocol as its peers."""

from __future__ import annotations

import numba

from benchmarks.networks import Training, model_of
from benchmarks.protocol import Call, Job, serve
from benchmarks.workloads import SAMPLED
from fastlstm import __version__


def prepare(job: Job) -> Call:
    if job.verb == "train":
        return Training(job.workload, threads=job.threads).step
    model = model_of(job.workload)
    return lambda: model.sample(length=SAMPLED, threads=job.threads)


if __name__ == "__main__":
    serve(f"fastlstm {__version__} (numba {numba.__version__})", prepare)
