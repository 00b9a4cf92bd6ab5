"""Trains the autoencoder on pieces of scenes: L1, L1 of the differences of neighbours, a little KL."""

import argparse
import os

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

import networks
from common import Average, Log, add_machine, cosine, descend, half, machine

KL_WEIGHT = 1e-4


class Pieces:
    """Random pieces of the pools' pictures; a third of them with their hole grey, as the pipeline encodes them."""

    def __init__(self, folder: str, seed: int):
        self.rng = np.random.default_rng(seed)
        self.pools = [np.load(f"{folder}/pool{size}.npy", mmap_mode="r") for size in (128, 256, 512)]

    def batch(self, count: int, size: int) -> torch.Tensor:
        """(count, 3, size, size) in -1 to 1."""
        pools = [p for p in self.pools if p.shape[1] >= size]
        shares = np.array([p.shape[1] ** -0.75 for p in pools])
        shares /= shares.sum()
        out = np.empty((count, size, size, 3), np.float32)
        for index in range(count):
            pool = pools[self.rng.choice(len(pools), p=shares)]
            row, column = self.rng.integers(pool.shape[1] - size + 1, size=2)
            piece = pool[self.rng.integers(len(pool)), row : row + size, column : column + size]
            if self.rng.random() < 0.5:
                piece = piece[:, ::-1]
            out[index] = piece[..., :3] / np.float32(127.5) - 1
            if self.rng.random() < 0.33:
                out[index][piece[..., 3] > 0] = 0
        return torch.from_numpy(out).permute(0, 3, 1, 2)


def reconstruction(y: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far `y` is from `x`: in its colours, and in the differences of neighbours."""
    flat = (y - x).abs().mean() + (y - x).square().mean()
    edges = sum((torch.diff(y, dim=d) - torch.diff(x, dim=d)).abs().mean() for d in (2, 3))
    return flat, edges


def losses(vae: AutoencoderKL, x: torch.Tensor, noise: torch.Tensor):
    """The reconstruction, edge and KL terms of a batch."""
    posterior = vae.encode(x).latent_dist
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    y = vae.decode(mean + (0.5 * logvar).exp() * noise).sample.float()
    flat, edges = reconstruction(y, x)
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return flat, edges, kl


@torch.no_grad()
def measure(vae: AutoencoderKL, pieces: Pieces, size: int, count: int) -> tuple[float, torch.Tensor, torch.Tensor]:
    """PSNR over `count` whole pictures of `size`, with the last picture and its reconstruction."""
    errors = []
    for _ in range(count):
        x = pieces.batch(1, size).to(vae.device)
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        errors.append(((y - x) / 2).square().mean().item())
    return float(np.mean([-10 * np.log10(e) for e in errors])), x, y


def save(vae: AutoencoderKL, average: Average, folder: str) -> None:
    """Writes the averaged weights."""
    average.swap()
    vae.save_pretrained(folder)
    average.swap()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", default="work/vae")
    parser.add_argument("--out", default="work/autoencoder")
    parser.add_argument("--init", help="a folder to start from")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=40)
    parser.add_argument("--floor", type=float, default=0.3, help="the last learning rate as a part of --rate")
    parser.add_argument("--seed", type=int, default=1)
    add_machine(parser)
    parser.add_argument("--compile", action="store_true")
    a = parser.parse_args()
    device = machine(a)
    vae = AutoencoderKL.from_pretrained(a.init, dtype=torch.float32) if a.init else networks.initialise(networks.autoencoder())
    vae.to(device, memory_format=torch.channels_last)
    weights = list(vae.parameters())
    optimizer = torch.optim.AdamW(weights, lr=a.rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    average, pieces, log = Average({"vae": vae}, 0.995), Pieces(a.pool, a.seed), Log("vae")
    step_losses = torch.compile(losses) if a.compile else losses
    for step in range(a.steps):
        optimizer.param_groups[0]["lr"] = cosine(step, step / a.steps, a.rate, a.warmup, a.floor)
        x = pieces.batch(a.batch, a.size).to(device, memory_format=torch.channels_last)
        noise = torch.randn(a.batch, 4, a.size // 8, a.size // 8).to(device)
        with half(device):
            flat, edges, kl = step_losses(vae, x, noise)
        loss = flat + 0.5 * edges + KL_WEIGHT * kl
        descend(loss, weights, optimizer)
        average.update()
        log.add(step, a.batch, loss=loss, flat=flat, edges=edges, kl=kl)
        if (step + 1) % 500 == 0 or step + 1 == a.steps:
            save(vae, average, a.out)
            log.plot()
            average.swap()
            psnr, x, y = measure(vae, Pieces(a.pool, 7), 256, 8)
            average.swap()
            print(f"psnr at 256: {psnr:.2f} dB", flush=True)
            strip = torch.cat([x[0], y[0]], dim=2).permute(1, 2, 0).add(1).mul(127.5).round().clamp(0, 255)
            Image.fromarray(strip.byte().cpu().numpy()).save(os.path.join(a.pool, f"vae{step + 1}.png"))


if __name__ == "__main__":
    main()
