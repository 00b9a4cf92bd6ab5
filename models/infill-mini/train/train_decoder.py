"""Trains the decoder alone, on latents that are a little wrong: true ones with noise, and what the UNet makes of true ones
(`finished.py`). It learns to draw flat colours and sharp edges from them. The latents stay what they are, so the UNet need not
know of it."""

import argparse
import functools
import glob
import re

import numpy as np
import torch
from diffusers import AutoencoderKL

import together
from common import Average, Log, add_length, add_machine, add_workers, cosine, half, machine, parts, workers
from crops import seeds
from cuts import crop
from train_vae import reconstruction, save

EXACT = 0.25  # share of the pieces of true latents without noise
FINISHED = 0.7  # share of the pieces of what the UNet made, where there are such


@functools.lru_cache(4096)  # 0.8 GB of crops of 256 px in each process that draws
def drawn(seed: int, size: int) -> np.ndarray:
    """(size, size, 3) uint8, the crop of this seed drawn again."""
    return np.ascontiguousarray(crop(seed, size)[0][..., :3])


def piece(seed: int, size: int, row: int, column: int, side: int) -> np.ndarray:
    """(side, side, 3) uint8 of the crop of this seed."""
    return drawn(seed, size)[row : row + side, column : column + side]


class Pairs:
    """Pieces of latents of the cached crops, and the same pieces drawn again, one batch ahead."""

    def __init__(self, a: argparse.Namespace, drawing):
        self.rng, self.count, self.side = np.random.default_rng(a.seed + together.rank()), a.batch // together.size(), a.side
        self.noise, self.drawing = a.noise, drawing
        self.true, self.finished = self._shards(a.data), self._shards(a.finished) if a.finished else []
        self.ahead = self._begin()

    @staticmethod
    def _shards(pattern: str) -> list[tuple[int, int, np.ndarray]]:
        """First seed, size and latents (count, 4, h, w) of every shard."""
        shards = []
        for path in sorted(glob.glob(pattern)):
            size, shard = map(int, re.search(r"(\d+)-(\d+)\.npz$", path).groups())
            shards.append((seeds(size, shard)[0], size, np.load(path)["latents"][:, :4]))
        if not shards:
            raise SystemExit(f"{pattern} matches no shard")
        return shards

    def _begin(self):
        latents, jobs, side = [], [], self.side
        for _ in range(self.count):
            finished = self.finished and self.rng.random() < FINISHED
            shards = self.finished if finished else self.true
            first, size, cached = shards[self.rng.integers(len(shards))]
            index = int(self.rng.integers(len(cached)))
            row, column = (8 * int(n) for n in self.rng.integers((size - side) // 8 + 1, size=2))
            jobs.append((first + index, size, row, column, side))
            part = cached[index, :, row // 8 : (row + side) // 8, column // 8 : (column + side) // 8].astype(np.float32)
            if not finished and self.rng.random() >= EXACT:
                part += self.rng.uniform(0, self.noise) * self.rng.standard_normal(part.shape, np.float32)
            latents.append(part)
        return latents, self.drawing.map(piece, *zip(*jobs))

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled latents (count, 4, side/8, side/8) and pieces (count, 3, side, side) in -1 to 1."""
        latents, pieces = self.ahead
        pieces = torch.from_numpy(np.stack(list(pieces))).permute(0, 3, 1, 2) / 127.5 - 1
        self.ahead = self._begin()
        return torch.from_numpy(np.stack(latents)), pieces


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="work/unet/*.npz", help="the shards")
    parser.add_argument("--finished", help="shards of `finished.py`, of the same names as those of the true latents")
    parser.add_argument("--init", default="..", help="the folder with vae/ to start from")
    parser.add_argument("--out", default="work/autoencoder")
    add_length(parser)
    parser.add_argument("--side", type=int, default=128, help="of the pieces, in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--noise", type=float, default=0.25, help="the largest standard deviation of what is wrong")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", default="decoder")
    parser.add_argument("--processes", type=int, default=1, help="that share the batch; --threads each")
    add_workers(parser)
    add_machine(parser)
    return parser.parse_args()


def train(a: argparse.Namespace) -> None:
    """One process of the training."""
    with workers(a.workers) as drawing:
        learn(a, drawing)


def learn(a: argparse.Namespace, drawing) -> None:
    """The training, with the processes that draw for it."""
    device = machine(a, a.seed + together.rank())
    pairs = Pairs(a, drawing)
    vae = AutoencoderKL.from_pretrained(f"{a.init}/vae", dtype=torch.float32).to(device, memory_format=torch.channels_last)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    weights = [p for p in vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=a.rate, betas=(0.9, 0.99), weight_decay=1e-4)
    average, log = Average({"vae": vae}, 0.995), Log(a.log, 25)
    for step, part in parts(a):
        latents, pieces = pairs.batch()
        latents, pieces = (x.to(device, memory_format=torch.channels_last) for x in (latents, pieces))
        with half(device):
            painted = vae.decode(latents / vae.config.scaling_factor).sample
        flat, edges = reconstruction(painted.float(), pieces)
        (flat + 0.5 * edges).backward()
        together.mean_gradients(weights)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.param_groups[0]["lr"] = cosine(step, part, a.rate, 40)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update()
        if together.rank():
            continue
        log.add(step, a.batch, flat=flat, edges=edges)
        if (step + 1) % 200 == 0:
            save(vae, average, a.out)
    if together.rank() == 0:
        save(vae, average, a.out)
        log.plot("flat")


if __name__ == "__main__":
    arguments = options()
    together.run(train, arguments, arguments.processes)
