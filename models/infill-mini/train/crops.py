"""Draws tasks and keeps them as latents, shard after shard, so that neither drawing nor encoding waits in a training loop.

A picture of 512 px has 64 x 64 latents, and most of them lie outside the hole. So most shards hold crops of 256 px
around the hole, out of scenes drawn at up to 512 px: objects keep the size that they have in a whole picture, at a
quarter of the price (crops of 128 px: a sixteenth). Whole pictures of 512 px are for the end of the training.
"""

import argparse
import json
import os
import random

import numpy as np
import torch
from diffusers import AutoencoderKL

import words
from common import add_machine, machine
from encode import encode
from tasks import Task, random_task

SHARD = 500  # samples in a file
VAGUE = 0.08  # share of the captions that leave colour or shape open
FULL, SMALL = 512, 64


def window(rng: random.Random, mask: np.ndarray, side: int) -> tuple[slice, slice]:
    """A random crop of `side` pixels that holds the hole where it can, aligned to latents."""
    corner = []
    for axis in (1, 0):
        found = np.flatnonzero(mask.any(axis)) if mask.any() else np.array([0, 0])
        low, high = max(0, int(found[-1]) + 1 - side), min(int(found[0]), len(mask) - side)
        low, high = (low + 7) // 8, high // 8
        corner.append(8 * (rng.randint(low, high) if low < high else high))
    return tuple(slice(start, start + side) for start in corner)


def largest_size(rng: random.Random, seed: int, side: int) -> int:
    """The size at which to draw the task of this seed so that its hole fits into a crop of `side` pixels, 512 at most."""
    wanted = rng.choice((FULL, FULL, 448, 384, 320))
    # A small drawing tells how large the hole is, in parts of the side.
    hole = random_task(seed, SMALL).mask
    extent = max(np.flatnonzero(hole.any(axis))[[0, -1]] @ (-1, 1) + 2 for axis in (0, 1)) / SMALL if hole.any() else 1
    return int(max(side, min(wanted, side / extent)) // 32 * 32)


def crop(seed: int, side: int) -> tuple[np.ndarray, Task, tuple[slice, slice]]:
    """A crop (side, side, 4) of the task of this seed, the task, and where in its picture the crop lies."""
    rng = random.Random(seed)
    task = random_task(seed, largest_size(rng, seed, side))
    place = window(rng, task.mask, side)
    return pixels(task)[place], task, place


def pixels(task: Task) -> np.ndarray:
    """The picture and its mask (255 = repaint) as four channels."""
    return np.concatenate([task.picture, task.mask[..., None] * np.uint8(255)], axis=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="work/unet")
    parser.add_argument("--vae", default="../vae")
    parser.add_argument("--count", type=int, default=24_000, help="samples in all")
    parser.add_argument("--size", type=int, default=256, help="of the crops; 512 for whole pictures")
    parser.add_argument("--first", type=int, default=0, help="the first shard")
    parser.add_argument("--part", type=int, default=0, help="which of --parts: several processes share the shards")
    parser.add_argument("--parts", type=int, default=1)
    add_machine(parser)
    a = parser.parse_args()
    device = machine(a)
    vae = AutoencoderKL.from_pretrained(a.vae, dtype=torch.float32).to(device)
    os.makedirs(a.out, exist_ok=True)
    shards = range(a.first + a.part, a.first - (-a.count // SHARD), a.parts)
    for shard in shards:
        path = f"{a.out}/{a.size}-{shard:03d}"
        if os.path.exists(path + ".npz"):
            continue
        rng = random.Random(shard)
        drawn, tasks, _ = zip(*(crop(1000 * a.size + shard * SHARD + index, a.size) for index in range(SHARD)))
        captions = [words.vague(rng, task.caption) if rng.random() < VAGUE else task.caption for task in tasks]
        latents = encode(vae, np.stack(drawn), max(1, 2 * 256 * 256 // a.size**2))
        with open(path + ".part", "wb") as file:
            np.savez(file, latents=latents, captions=json.dumps(captions))
        os.replace(path + ".part", path + ".npz")
        print(path, f"{latents[:, :4].astype(np.float32).std():.3f}", flush=True)


if __name__ == "__main__":
    main()
