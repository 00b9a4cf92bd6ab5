"""What every stage shares: a log that becomes a curve, the moving average of weights, the learning rate."""

import argparse
import csv
import itertools
import math
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image, ImageDraw


def add_machine(parser: argparse.ArgumentParser) -> None:
    """The options that say where a stage runs."""
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")


def machine(arguments: argparse.Namespace, seed: int = 0) -> torch.device:
    """Sets threads and seed; the device that the stage runs on."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs
    return torch.device(arguments.device)


def add_length(parser: argparse.ArgumentParser) -> None:
    """The options that say how long a stage trains."""
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int)
    length.add_argument("--minutes", type=float, help="instead of --steps, for one process: the rate falls by the clock")


def parts(arguments: argparse.Namespace) -> Iterator[tuple[int, float]]:
    """Every step's number, and which part of the training lies behind it."""
    start = time.time()
    for step in itertools.count():
        part = (time.time() - start) / (60 * arguments.minutes) if arguments.minutes else step / arguments.steps
        if part >= 1:
            return
        yield step, part


def add_workers(parser: argparse.ArgumentParser) -> None:
    """The option that says how many processes draw."""
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")


class Alone:
    """An executor that does the work itself when it is asked for a result."""

    def map(self, function, *jobs, chunksize: int = 1):
        """As the built-in function."""
        return map(function, *jobs)


@contextmanager
def workers(count: int) -> Iterator[ProcessPoolExecutor | Alone]:
    """So many processes, whose `map` begins at once and gives results in order; this one alone if there is one only.

    They are forked at the first `map`, which must come before this process touches a GPU. What nobody has taken by the end
    is dropped.
    """
    if count == 1:
        yield Alone()
        return
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("fork"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def descend(loss: torch.Tensor, weights: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """One step down the gradient, which is cut to a length of 1, and forgotten."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def half(device: torch.device) -> torch.autocast:
    """Mixed precision with bfloat16 on GPUs; on processors it is slower here, with instructions for it too."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu")


def cosine(step: int, part: float, peak: float, warmup: int = 100, floor: float = 0.02) -> float:
    """The learning rate of `step`, with `part` of the training behind it: a linear rise, then half a cosine down to `floor`
    of the peak."""
    return min(1.0, (step + 1) / warmup) * peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, part))))


def save_shard(path: str, **arrays: np.ndarray | str) -> None:
    """Writes arrays to `path` (.npz), which is there whole or not at all."""
    with open(path + ".part", "wb") as file:
        np.savez(file, **arrays)
    os.replace(path + ".part", path)


class Log:
    """Means over every `every` steps, printed and written to `curves/NAME.csv` and `.png`."""

    def __init__(self, name: str, every: int = 50):
        os.makedirs("curves", exist_ok=True)
        self.path, self.every = f"curves/{name}.csv", every
        self.sums: dict[str, torch.Tensor | float] = {}
        self.count, self.rows, self.start, self.samples = 0, [], time.time(), 0
        if os.path.exists(self.path):
            with open(self.path) as file:
                self.rows = list(csv.DictReader(file))
        self.offset = int(self.rows[-1]["step"]) if self.rows else 0

    def add(self, step: int, batch: int, **values: torch.Tensor) -> None:
        """Counts the losses of one step; a GPU is waited for only when they are printed."""
        self.samples += batch
        self.count += 1
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value.detach()
        if self.count < self.every:
            return
        row = {"step": self.offset + step + 1} | {k: f"{float(v) / self.count:.5f}" for k, v in self.sums.items()}
        self.rows.append(row)
        rate = self.samples / (time.time() - self.start)
        print(time.strftime("%H:%M:%S"), " ".join(f"{k} {v}" for k, v in row.items()), f"{rate:.1f}/s", flush=True)
        self.sums, self.count, self.samples, self.start = {}, 0, 0, time.time()
        with open(self.path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(row), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)

    def plot(self, key: str = "loss") -> None:
        """The curve on logarithmic axes, a small PNG without a plotting library."""
        points = [(math.log(float(r["step"])), math.log(max(1e-9, float(r[key])))) for r in self.rows]
        if len(points) < 2:
            return
        (x0, x1), (y0, y1) = ((min(axis), max(axis)) for axis in zip(*points))
        image = Image.new("L", (400, 240), 255)
        draw = ImageDraw.Draw(image)
        place = lambda x, y: (45 + 340 * (x - x0) / (x1 - x0 or 1), 215 - 195 * (y - y0) / (y1 - y0 or 1))  # noqa: E731
        draw.rectangle((45, 20, 385, 215), outline=180)
        draw.line([place(*p) for p in points], fill=0, width=2)
        draw.text((2, 14), f"{math.exp(y1):.3g}", fill=0)
        draw.text((2, 209), f"{math.exp(y0):.3g}", fill=0)
        draw.text((45, 222), f"step {math.exp(x0):.0f}", fill=0)
        draw.text((335, 222), f"{math.exp(x1):.0f}", fill=0)
        draw.text((190, 4), key, fill=0)
        image.save(self.path.replace(".csv", ".png"), optimize=True)


class Average:
    """The exponential moving average of a module's weights, warming up over the first steps."""

    def __init__(self, modules: dict[str, torch.nn.Module], decay: float):
        self.decay, self.steps = decay, 0
        self.pairs = [(p, p.detach().clone()) for m in modules.values() for p in m.parameters()]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights as they are now."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_([a for _, a in self.pairs], [p.detach() for p, _ in self.pairs], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the weights with their average; a second call undoes it."""
        for weight, average in self.pairs:
            keep = weight.detach().clone()
            weight.copy_(average)
            average.copy_(keep)
