"""Lets the UNet finish cached crops: noise is put on their true latents, and the UNet takes it off again, with guidance.

What comes out shows the true picture as this UNet paints it, with what it gets wrong: soft edges, halos. From such latents and the
true pictures the decoder learns to draw what was meant (`train_decoder.py`).
"""

import argparse
import glob
import json
import os

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from common import add_machine, half, machine, save_shard
from diffusion import Diffusion, sizes
from text import Words

FROM = (200, 700)  # time steps to begin at: from more noise another picture than the true one would come
STEPS = (4, 10)  # fewest, and one more than most
GUIDANCE = (2.0, 4.5)
BATCH = 25


class Finisher:
    """A model's UNet with its words."""

    def __init__(self, model: str, device: torch.device):
        self.unet = UNet2DConditionModel.from_pretrained(f"{model}/unet", dtype=torch.float32).requires_grad_(False)
        self.unet.to(device, memory_format=torch.channels_last)
        self.words, self.diffusion, self.device = Words(model, model, device), Diffusion(device), device

    @torch.no_grad()
    def __call__(self, nine: torch.Tensor, captions: list[str], rng: np.random.Generator) -> torch.Tensor:
        """The latents (B, 4, h, w) that the UNet makes of `nine` (B, 9, h, w)."""
        count, steps = len(nine), int(rng.integers(*STEPS))
        drawn = lambda low, high: torch.from_numpy(rng.uniform(low, high, count)).to(self.device)  # noqa: E731
        first, guidance = drawn(*FROM), drawn(*GUIDANCE).float()[:, None, None, None]
        at = lambda step: (first * (1 - step / steps)).long()  # noqa: E731
        context, pooled = (torch.cat([part, torch.zeros_like(part)]).float() for part in self.words(captions))
        given = {"text_embeds": pooled, "time_ids": sizes(count).to(self.device).repeat(2, 1)}
        noisy = self.diffusion.noisy(nine, at(0))
        for step in range(steps):
            both = torch.cat([noisy, noisy]).contiguous(memory_format=torch.channels_last)
            with half(self.device):
                v = self.unet(both, at(step).repeat(2), context, added_cond_kwargs=given).sample.float()
            with_words, without = v.chunk(2)
            guided = without + guidance * (with_words - without)
            clean, noise = self.diffusion.split(noisy[:, :4], guided, at(step))
            noisy = torch.cat([self.diffusion.mixed(clean, noise, at(step + 1)), nine[:, 4:]], dim=1)
        return clean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="work/unet/256-*.npz", help="the shards")
    parser.add_argument("--model", default="..")
    parser.add_argument("--out", default="work/finished", help="shards of the same names")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", type=int, default=0, help="which of --parts: several processes share the shards")
    parser.add_argument("--parts", type=int, default=1)
    add_machine(parser)
    a = parser.parse_args()
    device = machine(a)
    os.makedirs(a.out, exist_ok=True)
    finish = Finisher(a.model, device)
    for number, path in list(enumerate(sorted(glob.glob(a.data))))[a.part :: a.parts]:
        out = f"{a.out}/{os.path.basename(path)}"
        if os.path.exists(out):
            continue
        cached = np.load(path)
        torch.manual_seed(a.seed + number)  # a shard is the same whichever process makes it
        rng = np.random.default_rng(a.seed + number)
        latents, captions, made = cached["latents"], json.loads(str(cached["captions"])), []
        for start in range(0, len(latents), BATCH):
            nine = torch.from_numpy(latents[start : start + BATCH]).float().to(device)
            made.append(finish(nine, captions[start : start + BATCH], rng).half().cpu().numpy())
        finished = np.concatenate(made)
        save_shard(out, latents=finished)
        wrong = finished.astype(np.float32) - latents[:, :4]
        print(out, f"{np.square(wrong).mean():.4f}", flush=True)


if __name__ == "__main__":
    main()
