"""Draws pictures for the autoencoder once and keeps them as raw pixels, so that no drawing waits in a training loop."""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from cuts import pixels
from tasks import random_task

HELD_OUT = 1_000_000_000  # seeds from here on are for evaluation only

# (size, count, first seed)
POOLS = ((128, 6000, 800_000), (256, 1500, 700_000), (512, 300, 600_000))


def drawn(seed: int, size: int) -> np.ndarray:
    """One task as (size, size, 4) uint8."""
    return pixels(random_task(seed, size))


def draw(folder: str, first: int, count: int, size: int, workers: int) -> None:
    """Writes `count` tasks as (count, size, size, 4) uint8, the picture and its mask (255 = repaint)."""
    path = f"{folder}/pool{size}"
    out = np.lib.format.open_memmap(path + ".part", "w+", np.uint8, (count, size, size, 4))
    with ProcessPoolExecutor(workers) as pool:
        made = pool.map(drawn, range(first, first + count), [size] * count, chunksize=64)
        for index, picture in enumerate(made):
            out[index] = picture
    out.flush()
    os.replace(path + ".part", path + ".npy")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="work/vae")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of pictures")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    for size, count, first in POOLS:
        draw(arguments.out, first, int(count * arguments.scale), size, arguments.workers)
