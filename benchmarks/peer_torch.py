"""PyTorch as a peer: nn.Embedding, nn.LSTM and nn.Linear, in the usual way. Runs where torch is installed."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

from benchmarks.protocol import Call, Job, serve
from benchmarks.workloads import CLIP_NORM, LEARNING_RATE, SAMPLED, Workload


class CharacterModel(nn.Module):
    """Maps symbols (T, B) and a state to logits (T, B, V) and the next state."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.embedding = nn.Embedding(workload.V, workload.E)
        self.lstm = nn.LSTM(workload.E, workload.H, workload.L)
        self.output = nn.Linear(workload.H, workload.V)

    def forward(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        y, state = self.lstm(self.embedding(x), state)
        return self.output(y), state


def autocast(job: Job) -> contextlib.AbstractContextManager[Any]:
    """The bfloat16 autocast for a job in bf16, else a context that does nothing."""
    if job.precision == "bf16":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def batch(workload: Workload) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Random symbols (T, B), their targets (T*B,), and the state before them."""
    x, y = torch.randint(0, workload.V, (2, workload.T, workload.B))
    zeros = torch.zeros(workload.L, workload.B, workload.H)
    return x, y.view(-1), (zeros, zeros)


def training(job: Job, model: CharacterModel) -> Call:
    workload = job.workload
    optimizer = torch.optim.Adagrad(model.parameters(), lr=LEARNING_RATE)
    x, y, carried = batch(workload)

    def step() -> None:
        nonlocal carried
        with autocast(job):
            logits, (h, c) = model(x, carried)
        loss = nn.functional.cross_entropy(logits.float().view(-1, workload.V), y)
        carried = (h.detach().float(), c.detach().float())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()

    return step


def sampling(job: Job, model: CharacterModel) -> Call:
    @torch.inference_mode()
    def write() -> None:
        symbol, state = torch.zeros(1, 1, dtype=torch.long), None
        for _ in range(SAMPLED):
            with autocast(job):
                logits, state = model(symbol, state)
            symbol = torch.multinomial(torch.softmax(logits[0].float(), dim=-1), 1)

    return write


def reading(job: Job, model: CharacterModel) -> Call:
    x, y, carried = batch(job.workload)

    @torch.inference_mode()
    def read() -> float:
        nonlocal carried
        with autocast(job):
            logits, (h, c) = model(x, carried)
        carried = (h.float(), c.float())
        return nn.functional.cross_entropy(logits.float().view(-1, job.workload.V), y, reduction="sum").item()

    return read


CALLS = {"train": training, "sample": sampling, "read": reading}


def prepare(job: Job) -> Call:
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    model = CharacterModel(job.workload)
    return CALLS[job.verb](job, model)


if __name__ == "__main__":
    serve(f"PyTorch {torch.__version__}", prepare)
