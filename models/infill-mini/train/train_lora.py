"""Trains a style as a LoRA on the frozen UNet: "sticker", every object with a wide white rim and a soft shadow."""

import argparse
import random

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionXLInpaintPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image, ImageFilter
from scipy import ndimage

import words
from common import Log, add_machine, cosine, descend, half, machine
from cuts import largest_size, window
from diffusion import Diffusion, sizes
from encode import encode
from scenes import Thing, draw_background, draw_thing, thing_mask
from tasks import random_task
from text import Words

FIRST_SEED = 950_000
RIM, SHADOW = 0.16, 0.10  # in radii
RANK = 8


def draw_sticker(canvas: np.ndarray, thing: Thing) -> None:
    """The object as a sticker, onto `canvas` (size, size, 3), values 0 to 255."""
    size = canvas.shape[0]
    rim = thing_mask(thing, size, RIM * thing.radius)
    offset = max(1, round(SHADOW * thing.radius * size))
    blurred = Image.fromarray((rim * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(offset * 0.6))
    shadow = ndimage.shift(np.asarray(blurred, np.float32) / 255, offset, order=0)
    canvas *= 1 - 0.45 * shadow[..., None]
    canvas += rim[..., None] * (np.float32(252) - canvas)
    draw_thing(canvas, thing)


def stickers(count: int, side: int) -> tuple[np.ndarray, list[str]]:
    """`count` crops with masks, (count, side, side, 4) uint8, and captions that do not name the style."""
    drawn, captions, seed = [], [], FIRST_SEED
    while len(drawn) < count:
        rng = random.Random(seed)
        size = largest_size(rng, seed, side)
        task = random_task(seed, size)
        seed += 1
        if task.kind != "object" or "neon" in task.scene.style:
            continue
        thing = task.targets[0]
        canvas = draw_background(task.scene, size)
        for other in task.scene.things:
            draw_sticker(canvas, other) if other is thing else draw_thing(canvas, other)
        mask = task.mask | (thing_mask(thing, size, 1.4 * RIM * thing.radius) > 0)
        picture = (np.clip(canvas, 0, 255) + 0.5).astype(np.uint8)
        whole = np.concatenate([picture, mask[..., None] * np.uint8(255)], axis=2)
        drawn.append(whole[window(rng, mask, side)])
        captions.append(words.object_phrase(rng, thing.colour, thing.shape, thing.radius, thing.style, False))
    return np.stack(drawn), captions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="..")
    parser.add_argument("--out", default="../loras")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    add_machine(parser)
    a = parser.parse_args()
    device = machine(a, 4)
    vae = AutoencoderKL.from_pretrained(f"{a.model}/vae", dtype=torch.float32).to(device)
    unet = UNet2DConditionModel.from_pretrained(f"{a.model}/unet", dtype=torch.float32).requires_grad_(False)
    unet.to(device, memory_format=torch.channels_last)
    drawn, captions = stickers(a.count, a.size)
    latents = torch.from_numpy(encode(vae, drawn)).to(device)
    context, pooled = (part.to(device) for part in Words(a.model, a.model, device)(captions))
    targets = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=targets))
    trained = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=a.rate, weight_decay=1e-2, fused=True)
    diffusion, log, rng = Diffusion(device), Log("lora", 20), np.random.default_rng(1)
    for step in range(a.steps):
        optimizer.param_groups[0]["lr"] = cosine(step, step / a.steps, a.rate)
        index = torch.from_numpy(rng.integers(a.count, size=a.batch)).to(device)
        stay = torch.from_numpy(rng.random(a.batch) >= 0.1).float().to(device)
        given = {"text_embeds": pooled[index].float() * stay[:, None], "time_ids": sizes(a.batch).to(device)}
        with half(device):
            losses = diffusion.losses(unet, latents[index].float(), diffusion.timesteps(a.batch),
                                      context[index].float() * stay[:, None, None], given)  # fmt: skip
        descend(losses.mean(), trained, optimizer)
        log.add(step, a.batch, loss=losses.mean())
    log.plot()
    layers = {k: v.half().contiguous() for k, v in get_peft_model_state_dict(unet).items()}
    StableDiffusionXLInpaintPipeline.save_lora_weights(
        a.out, unet_lora_layers=layers, weight_name="sticker.safetensors", safe_serialization=True)  # fmt: skip


if __name__ == "__main__":
    main()
