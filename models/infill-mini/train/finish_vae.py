"""Sets the autoencoder's scaling factor (latents of unit variance) and measures its reconstruction."""

import argparse
import glob
import json

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from common import add_machine, machine
from pool import HELD_OUT
from tasks import random_task


def tensor(picture: np.ndarray) -> torch.Tensor:
    """(size, size, 3) uint8 to (1, 3, size, size) in -1 to 1."""
    return torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


@torch.no_grad()
def psnr(vae: AutoencoderKL, x: torch.Tensor) -> tuple[float, torch.Tensor]:
    """In dB, and the reconstruction."""
    y = vae.decode(vae.encode(x.to(vae.device)).latent_dist.mode()).sample.clamp(-1, 1).cpu()
    return -10 * float(np.log10(((x - y) / 2).square().mean().item())), y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", default="work/autoencoder")
    parser.add_argument("--pool", default="work/vae")
    parser.add_argument("--photographs", help="a folder of pictures to measure too")
    parser.add_argument("--keep-scale", action="store_true", help="measure only: the UNet knows these latents")
    parser.add_argument("--count", type=int, default=12)
    add_machine(parser)
    a = parser.parse_args()
    vae = AutoencoderKL.from_pretrained(a.vae, dtype=torch.float32).to(machine(a))
    if not a.keep_scale:
        pixels = np.load(f"{a.pool}/pool256.npy", mmap_mode="r")[:40, ..., :3]
        with torch.no_grad():
            spread = torch.cat([vae.encode(tensor(p).to(vae.device)).latent_dist.mode() for p in pixels]).std().item()
        vae.register_to_config(scaling_factor=round(1 / spread, 5))
        vae.save_pretrained(a.vae)
    figures = {"scaling_factor": vae.config.scaling_factor}
    strips = []
    for size in (256, 512):
        values = []
        for seed in range(a.count):
            x = tensor(random_task(HELD_OUT + seed, size).picture)
            value, y = psnr(vae, x)
            values.append(value)
            if size == 512 and seed < 4:
                strips.append(torch.cat([x, y], 3))
        figures[f"psnr_{size}"] = round(float(np.mean(values)), 2)
    for path in sorted(glob.glob(f"{a.photographs}/*.png")) if a.photographs else []:
        if not path.endswith("-mask.png"):
            photograph = Image.open(path).convert("RGB").resize((512, 512))
            value, y = psnr(vae, tensor(np.asarray(photograph)))
            figures[f"psnr_{path.rsplit('/', 1)[1]}"] = round(value, 2)
    sheet = torch.cat(strips, 2)[0].permute(1, 2, 0).add(1).mul(127.5).round().clamp(0, 255).byte().numpy()
    Image.fromarray(sheet).resize((512, 1024)).save("sheets/vae.png", optimize=True)
    with open("sheets/vae.json", "w") as file:
        json.dump(figures, file, indent=1)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
