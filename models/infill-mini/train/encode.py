"""Turns drawn pictures into latents: of the picture, of the picture with its hole, and the hole itself."""

import numpy as np
import torch
from diffusers import AutoencoderKL


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: np.ndarray) -> np.ndarray:
    """(count, size, size, 3) uint8 with a mask as fourth channel to (count, 9, size/8, size/8) float16.

    The channels are those of the UNet: the scaled latents of the picture, the mask, the scaled latents of the holed picture.
    """
    count, size = pixels.shape[:2]
    batch = max(1, (32 if vae.device.type == "cuda" else 1) * 256**2 // size**2)
    out = np.empty((count, 9, size // 8, size // 8), np.float16)
    vae.to(memory_format=torch.channels_last)
    for start in range(0, count, batch):
        part = torch.from_numpy(np.array(pixels[start : start + batch])).to(vae.device)
        mask = (part[..., 3:] > 127).permute(0, 3, 1, 2)
        picture = part[..., :3].permute(0, 3, 1, 2) / 127.5 - 1
        both = torch.cat([picture, picture * ~mask]).contiguous(memory_format=torch.channels_last)
        means = vae.encode(both).latent_dist.mean.float() * vae.config.scaling_factor
        whole, holed = means.chunk(2)
        out[start : start + batch] = torch.cat([whole, mask[:, :, ::8, ::8], holed], dim=1).cpu().numpy()
    return out
