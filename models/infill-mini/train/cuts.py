"""Crops around the hole, out of scenes drawn at up to 512 px; nothing of torch, so that drawing processes start at once."""

import random

import numpy as np

from tasks import Task, random_task

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
    # A small mask tells how large the hole is, in parts of the side.
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
