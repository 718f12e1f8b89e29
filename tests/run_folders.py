"""Run folders for several tests: their files, written line by line as `fastlstm.history` describes them."""

import json
import math


def training(step, nats, *, per_step=0.5, steps_per_epoch=100, **more):
    """A line of a training step; by default a step takes half a second."""
    return {
        "step": step, "seconds": per_step * step, "epoch": step / steps_per_epoch, "loss": nats, "train_nats": nats,
        "rate": 0.01, "norm": 1.5, "chars_per_s": 1e6, **more,
    }  # fmt: skip


def validation(step, nats, best, *, per_step=0.5, error=0.02, **more):
    """A line of a validation; ``best`` is the loss of the best check and its step."""
    return {
        "step": step, "seconds": per_step * step, "val_nats": nats, "val_error": error,
        "best_nats": best[0], "best_step": best[1], **more,
    }  # fmt: skip


def end(step, nats, model_step, *, finished=True, per_step=0.5):
    """The line at the end of a run, with the exact loss of the model that it leaves."""
    seconds = per_step * step
    return {"step": step, "seconds": seconds, "finished": finished, "val_nats": nats, "model_step": model_step}


def write(folder, lines, settings=None, record=None):
    """Write the files of a run; returns its folder."""
    folder.mkdir(parents=True)
    values = {"hidden": 128, "lr": 0.01, "steps": 1000, "data": ["notes.txt"]} | (settings or {})
    table = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    table += ["[run]", *(f"{name} = {json.dumps(value)}" for name, value in (record or {}).items())]
    (folder / "config.toml").write_text("\n".join(table) + "\n", encoding="utf-8")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def falling(rng, steps=1000, *, start=4.2, limit=1.4, half=60.0, checks=10, every=None, overfit=0.0, finished=True):
    """The lines of a whole run: losses that fall to about ``limit``, and then, if they overfit, rise on validation."""
    every = every or max(1, steps // 1000)
    lines, best = [], (math.inf, 0)
    for step in range(every, steps + 1, every):
        fall = (start - limit) * 0.5 ** (step / half) + 0.15 * (1 - step / steps)
        lines.append(training(step, limit + fall + 0.008 * rng.standard_normal()))
        if step % (steps // checks) == 0 and step < steps:
            nats = limit + fall + 0.1 + overfit * step / steps + 0.01 * rng.standard_normal()
            best = min(best, (nats, step))
            lines.append(validation(step, nats, best))
    if finished:
        nats = limit + 0.1 + overfit
        exact = min((nats, steps), (best[0] + 0.004, best[1]))
        lines += [validation(steps, exact[0], best, error=None), end(steps, *exact)]
    return lines
