"""Draws a sheet of training samples: each picture with its hole in grey beside it, and the captions on standard output."""

import argparse

import numpy as np
from PIL import Image

from tasks import random_task


def sheet(seeds: range, size: int, columns: int) -> Image.Image:
    """Pairs of picture and picture with the hole, `columns` pairs a row."""
    cells = []
    for seed in seeds:
        task = random_task(seed, size)
        holed = np.where(task.mask[..., None], np.uint8(127), task.picture)
        cells.append(np.concatenate([task.picture, holed], axis=1))
        print(f"{seed:4d} {task.kind:10s} {task.caption!r}")
    rows = [np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)]
    return Image.fromarray(np.concatenate([r for r in rows if r.shape == rows[0].shape], axis=0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="sheets/data.png")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--columns", type=int, default=5)
    arguments = parser.parse_args()
    sheet(range(arguments.count), arguments.size, arguments.columns).save(arguments.out, optimize=True)
