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
from common import add_machine, add_workers, machine, save_shard, workers
from cuts import crop
from encode import encode

SHARD = 500  # samples in a file
VAGUE = 0.08  # share of the captions that leave colour or shape open


def seeds(size: int, shard: int) -> range:
    """The seeds of a shard's tasks."""
    return range(1000 * size + shard * SHARD, 1000 * size + (shard + 1) * SHARD)


def drawn(seed: int, side: int) -> tuple[np.ndarray, str]:
    """The crop of this seed and its caption."""
    picture, task, _ = crop(seed, side)
    return picture, task.caption


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="work/unet")
    parser.add_argument("--vae", default="../vae")
    parser.add_argument("--count", type=int, default=24_000, help="samples in all")
    parser.add_argument("--size", type=int, default=256, help="of the crops; 512 for whole pictures")
    parser.add_argument("--first", type=int, default=0, help="the first shard")
    parser.add_argument("--part", type=int, default=0, help="which of --parts: several processes share the shards")
    parser.add_argument("--parts", type=int, default=1)
    add_workers(parser)
    add_machine(parser)
    a = parser.parse_args()
    device = machine(a)
    os.makedirs(a.out, exist_ok=True)
    paths = {shard: f"{a.out}/{a.size}-{shard:03d}" for shard in range(a.first + a.part, a.first - (-a.count // SHARD), a.parts)}
    missing = [shard for shard, path in paths.items() if not os.path.exists(path + ".npz")]
    with workers(a.workers) as drawing:
        begin = lambda shard: drawing.map(drawn, seeds(a.size, shard), [a.size] * SHARD, chunksize=8)  # noqa: E731
        ahead = begin(missing[0]) if missing else None
        vae = AutoencoderKL.from_pretrained(a.vae, dtype=torch.float32).to(device)
        for shard, following in zip(missing, [*missing[1:], None]):
            pictures, captions = zip(*ahead)
            ahead = begin(following) if following is not None else None  # is drawn while this one is encoded
            rng = random.Random(shard)
            captions = [words.vague(rng, caption) if rng.random() < VAGUE else caption for caption in captions]
            latents = encode(vae, np.stack(pictures))
            save_shard(paths[shard] + ".npz", latents=latents, captions=json.dumps(captions))
            print(paths[shard], f"{latents[:, :4].astype(np.float32).std():.3f}", flush=True)


if __name__ == "__main__":
    main()
