"""The protocol between `benchmarks.peers` and a library under measurement: lines of JSON, one per request and reply.

A peer runs in a separate process and environment for the whole run, so that importing and compiling are not measured.
Between its turns it waits for standard input, and does not disturb the others. Needs only the standard library.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.timing import median_seconds, warm_up
from benchmarks.workloads import Workload

Call = Callable[[], object]


class Job(NamedTuple):
    """What a peer should run.

    Attributes
    ----------
    verb : ``"train"``: one training step per call; ``"sample"``: ``SAMPLED`` characters per call; ``"read"``: the loss
        of one sequence in each lane per call.
    workload : the sizes of the model and of a step.
    threads : worker threads it may use.
    precision : ``"fp32"`` or ``"bf16"``.
    variant : empty: the usual way; ``"bound"``: with inputs and outputs bound to fixed memory (ONNX Runtime).
    """

    verb: str
    workload: Workload
    threads: int
    precision: str = "fp32"
    variant: str = ""


def request_line(job: Job, seconds: float) -> str:
    """The line that requests ``seconds`` of ``job``."""
    return json.dumps({**job._asdict(), "workload": job.workload._asdict(), "seconds": seconds}) + "\n"


def parse_request(line: str) -> tuple[Job, float]:
    """Inverse of `request_line`."""
    fields = json.loads(line)
    seconds = fields.pop("seconds")
    return Job(**{**fields, "workload": Workload(**fields["workload"])}), seconds


def serve(version: str, prepare: Callable[[Job], Call]) -> None:
    """Answer requests until standard input ends; the first line of output is the version.

    ``prepare`` builds what a job needs and returns the call to be timed. The last job stays prepared for its next turn.
    """
    # Output that a library prints must not be mixed with the replies.
    replies, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps({"version": version}), file=replies, flush=True)
    prepared: Job | None = None
    call: Call | None = None
    for line in sys.stdin:
        job, seconds = parse_request(line)
        reply: dict[str, Any]
        try:
            if call is None or job != prepared:
                call, prepared = prepare(job), job
                warm_up(call)
            reply = {"ms": 1e3 * median_seconds(call, seconds)}
        except Exception as error:  # a library may raise anything: report it, because the next job may work
            prepared, reply = None, {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)
