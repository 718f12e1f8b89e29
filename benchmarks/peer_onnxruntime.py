"""ONNX Runtime as a peer for inference: a graph of Gather, LSTM and Gemm. Runs where onnxruntime and onnx are.

The graph ends in what the verb needs: probabilities of the next symbol (``p``), from which NumPy draws; the drawn
symbol itself (``drawn``), for the variant whose inputs and outputs are bound to fixed memory; or the loss (``nats``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
import onnxruntime as ort
from onnx import NodeProto, TensorProto, ValueInfoProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from benchmarks.protocol import Call, Job, serve
from benchmarks.workloads import SAMPLED, Workload

#: Versions of the operators and of the format that all current releases of ONNX Runtime read.
OPSET, IR_VERSION = 17, 9

State = dict[str, np.ndarray]


def state_names(workload: Workload) -> list[str]:
    """Names of the inputs for the carried state; the outputs have the same names with ``_out``."""
    return [f"{part}{layer}" for layer in range(workload.L) for part in "hc"]


def zero_state(workload: Workload) -> State:
    return {name: np.zeros((1, workload.B, workload.H), np.float32) for name in state_names(workload)}


def initialisers(workload: Workload) -> list[TensorProto]:
    """Random weights, and the constants of the graph."""
    V, E, H, L, *_ = workload
    rng = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array((rng.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32), name)

    layers = [
        tensor
        for layer in range(L)
        for tensor in (
            weights(f"Wx{layer}", 1, 4 * H, E if layer == 0 else H),
            weights(f"Wh{layer}", 1, 4 * H, H),
            weights(f"b{layer}", 1, 8 * H),
        )
    ]
    constants = {"directions": [1], "flat": [-1, H]}
    return [
        weights("embedding", V, E), *layers, weights("Wy", H, V), weights("by", V),
        *(numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()),
    ]  # fmt: skip


def logits_nodes(workload: Workload) -> list[NodeProto]:
    """From ``x`` and the state to ``logits`` (T*B, V) and the next state."""
    nodes, below = [make_node("Gather", ["embedding", "x"], ["h_below0"])], "h_below0"
    for layer in range(workload.L):
        inputs = [below, f"Wx{layer}", f"Wh{layer}", f"b{layer}", "", f"h{layer}", f"c{layer}"]
        outputs = [f"y{layer}", f"h{layer}_out", f"c{layer}_out"]
        below = f"h_below{layer + 1}"
        nodes += [
            make_node("LSTM", inputs, outputs, hidden_size=workload.H),
            make_node("Squeeze", [f"y{layer}", "directions"], [below]),
        ]
    return [
        *nodes, make_node("Reshape", [below, "flat"], ["h_top"]), make_node("Gemm", ["h_top", "Wy", "by"], ["logits"])
    ]  # fmt: skip


#: The end of the graph for each result. The loss of known targets is cheapest in the graph.
ENDS = {
    "p": [make_node("Softmax", ["logits"], ["p"], axis=-1)],
    "drawn": [make_node("Multinomial", ["logits"], ["drawn"], sample_size=1, dtype=TensorProto.INT64)],
    "nats": [
        make_node("LogSoftmax", ["logits"], ["log_p"], axis=-1),
        make_node("GatherElements", ["log_p", "y"], ["log_p_y"], axis=1),
        make_node("ReduceSum", ["log_p_y"], ["sum"], keepdims=0),
        make_node("Neg", ["sum"], ["nats"]),
    ],
}


def graph(workload: Workload, result: str) -> bytes:
    """The model whose first output is ``result``, followed by the next state; inputs ``x``, ``y`` and the state."""
    B, H, V = workload.B, workload.H, workload.V

    def state(suffix: str) -> list[ValueInfoProto]:
        names = state_names(workload)
        return [make_tensor_value_info(name + suffix, TensorProto.FLOAT, [1, B, H]) for name in names]

    inputs = [make_tensor_value_info("x", TensorProto.INT64, ["T", B]), *state("")]
    if result == "nats":
        inputs.append(make_tensor_value_info("y", TensorProto.INT64, ["N", 1]))
    first = {
        "p": make_tensor_value_info("p", TensorProto.FLOAT, ["N", V]),
        "drawn": make_tensor_value_info("drawn", TensorProto.INT64, ["N", 1]),
        "nats": make_tensor_value_info("nats", TensorProto.FLOAT, []),
    }[result]
    nodes = [*logits_nodes(workload), *ENDS[result]]
    made = make_graph(nodes, "characters", inputs, [first, *state("_out")], initialisers(workload))
    model = make_model(made, opset_imports=[make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(model.SerializeToString())


def session(job: Job, result: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job.threads, 1
    return ort.InferenceSession(graph(job.workload, result), options, providers=["CPUExecutionProvider"])


def sampling(job: Job) -> Call:
    """The usual loop: a call of the session for each character."""
    run, rng = session(job, "p").run, np.random.default_rng(0)
    zeros = zero_state(job.workload)

    def write() -> None:
        symbol, state = np.zeros((1, 1), np.int64), zeros
        for _ in range(SAMPLED):
            p, *after = run(None, {"x": symbol, **state})
            state = dict(zip(state, after, strict=True))
            drawn = np.searchsorted(np.cumsum(p[0]), rng.random())
            symbol = np.full((1, 1), min(drawn, job.workload.V - 1), np.int64)

    return write


def bound_sampling(job: Job) -> Call:
    """The fastest loop known: the graph draws, and two sets of memory are input and output in turn, without copies."""
    started = session(job, "drawn")
    names = ["x", *state_names(job.workload)]
    start = [np.zeros((1, 1), np.int64), *zero_state(job.workload).values()]
    first, second = ([ort.OrtValue.ortvalue_from_numpy(array) for array in start] for _ in range(2))

    def binding(read: Sequence[ort.OrtValue], written: Sequence[ort.OrtValue]) -> ort.IOBinding:
        made = started.io_binding()
        for name, value in zip(names, read, strict=True):
            made.bind_ortvalue_input(name, value)
        for output, value in zip(started.get_outputs(), written, strict=True):
            made.bind_ortvalue_output(output.name, value)
        return made

    bindings = (binding(first, second), binding(second, first))

    def write() -> None:
        for value, array in zip(first, start, strict=True):
            value.update_inplace(array)
        for bound in islice(cycle(bindings), SAMPLED):
            started.run_with_iobinding(bound)

    return write


def reading(job: Job) -> Call:
    workload = job.workload
    run, rng = session(job, "nats").run, np.random.default_rng(0)
    x = rng.integers(workload.V, size=(workload.T, workload.B))
    y = rng.integers(workload.V, size=(workload.chars, 1))
    state = zero_state(workload)

    def read() -> None:
        nonlocal state
        _, *after = run(None, {"x": x, "y": y, **state})
        state = dict(zip(state, after, strict=True))

    return read


def prepare(job: Job) -> Call:
    if job.verb == "read":
        return reading(job)
    return bound_sampling(job) if job.variant == "bound" else sampling(job)


if __name__ == "__main__":
    serve(f"ONNX Runtime {ort.__version__}", prepare)
