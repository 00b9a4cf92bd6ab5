"""Draws tasks once and keeps them as raw pixels with their captions, so that no drawing waits in a training loop."""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from tasks import random_task

HELD_OUT = 1_000_000_000  # seeds from here on are for evaluation only

# For the autoencoder (few, of all sizes) and for the UNet: (size, count, first seed).
SETS = {
    "vae": ((128, 6000, 800_000), (256, 1500, 700_000), (512, 300, 600_000)),
    "unet": ((128, 16_000, 0), (256, 5000, 200_000), (512, 1200, 400_000)),
}


def drawn(seed: int, size: int) -> tuple[np.ndarray, str]:
    """One task as (size, size, 4) uint8, and its caption."""
    task = random_task(seed, size)
    return np.concatenate([task.picture, task.mask[..., None] * np.uint8(255)], axis=2), task.caption


def draw(folder: str, first: int, count: int, size: int, workers: int) -> None:
    """Writes `count` tasks as (count, size, size, 4) uint8, the picture and its mask (255 = repaint), and the captions."""
    path = f"{folder}/pool{size}"
    out = np.lib.format.open_memmap(path + ".part", "w+", np.uint8, (count, size, size, 4))
    captions = []
    with ProcessPoolExecutor(workers) as pool:
        made = pool.map(drawn, range(first, first + count), [size] * count, chunksize=64)
        for index, (pixels, caption) in enumerate(made):
            out[index] = pixels
            captions.append(caption)
    out.flush()
    with open(path + ".json", "w") as file:
        json.dump(captions, file)
    os.replace(path + ".part", path + ".npy")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--out", help="a folder; by default work/SET")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of pictures")
    parser.add_argument("--sizes", type=int, nargs="+", default=(128, 256, 512))
    parser.add_argument("--workers", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    target = arguments.out or f"work/{arguments.set}"
    os.makedirs(target, exist_ok=True)
    for size, count, first in SETS[arguments.set]:
        if size in arguments.sizes:
            draw(target, first, int(count * arguments.scale), size, arguments.workers)
