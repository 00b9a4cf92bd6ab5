"""Turns the drawn tasks into latents: of the picture, of the picture with its hole, and the hole itself."""

import argparse
import json
import random

import numpy as np
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

import words
from common import add_machine, half, machine

VAGUE = 0.08  # share of the captions that leave colour or shape open


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: np.ndarray, batch: int) -> np.ndarray:
    """(count, size, size, 3) uint8 with a mask as fourth channel to (count, 9, size/8, size/8) float16.

    The channels are those of the UNet: the scaled latents of the picture, the mask, the scaled latents of the holed picture.
    """
    count, size = pixels.shape[:2]
    out = np.empty((count, 9, size // 8, size // 8), np.float16)
    for start in range(0, count, batch):
        part = torch.from_numpy(np.array(pixels[start : start + batch]))
        mask = (part[..., 3:] > 127).permute(0, 3, 1, 2)
        picture = part[..., :3].permute(0, 3, 1, 2) / 127.5 - 1
        both = torch.cat([picture, picture * ~mask]).contiguous(memory_format=torch.channels_last)
        with half(vae.device):
            means = vae.encode(both.to(vae.device)).latent_dist.mean.float().cpu() * vae.config.scaling_factor
        whole, holed = means.chunk(2)
        out[start : start + batch] = torch.cat([whole, mask[:, :, ::8, ::8], holed], dim=1).numpy()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", default="work/unet")
    parser.add_argument("--vae", default="../vae")
    parser.add_argument("--tokenizer", default="..")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--count", type=int, help="the first so many only")
    add_machine(parser)
    a = parser.parse_args()
    device = machine(a)
    vae = AutoencoderKL.from_pretrained(a.vae, dtype=torch.float32).to(device, memory_format=torch.channels_last)
    pixels = np.load(f"{a.pool}/pool{a.size}.npy", mmap_mode="r")[: a.count]
    with open(f"{a.pool}/pool{a.size}.json") as file:
        captions = json.load(file)[: a.count]
    rng = random.Random(a.size)
    captions = [words.vague(rng, c) if rng.random() < VAGUE else c for c in captions]
    ids = [
        np.array(CLIPTokenizer.from_pretrained(f"{a.tokenizer}/{name}")(
            captions, padding="max_length", max_length=77, truncation=True).input_ids, np.int16)
        for name in ("tokenizer", "tokenizer_2")
    ]  # fmt: skip
    latents = encode(vae, pixels, max(1, 8 * 128 * 128 // a.size**2))
    np.savez(f"{a.pool}/latents{a.size}.npz", latents=latents, ids_1=ids[0], ids_2=ids[1])
    print(f"{len(latents)} samples; standard deviation of the latents {latents[:, :4].astype(np.float32).std():.3f}")


if __name__ == "__main__":
    main()
