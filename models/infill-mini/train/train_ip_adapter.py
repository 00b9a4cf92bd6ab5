"""Trains the image encoder, its projection and the image attention of a frozen model, in two parts.

First the image encoder learns to name colour, shape and style of an object on any background (its heads are thrown
away); then encoder, projection and the attention to the image tokens learn to paint the object that a reference shows.
"""

import argparse
import itertools
import os
import random

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

import words
from common import Log, add_machine, add_workers, cosine, half, machine, workers
from cuts import crop
from diffusion import Diffusion, sizes
from encode import encode
from export import public_names, tidy_config
from scenes import Scene, Thing, draw_background, draw_thing, random_scene
from text import Words

SIDE, WIDTH, TOKENS = 64, 128, 4
KINDS = (list(words.COLOURS), list(words.SHAPES), list(words.STYLES))
FIRST_SEED = 900_000
MEAN, SPREAD = (torch.tensor(v)[:, None, None] for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))


def vision() -> CLIPVisionModelWithProjection:
    """A small image encoder: 64 pixels, patches of 8."""
    return CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=4, num_attention_heads=4,
        image_size=SIDE, patch_size=8, projection_dim=WIDTH, hidden_act="gelu"))  # fmt: skip


def reference(rng: random.Random, thing: Thing) -> np.ndarray:
    """A picture (SIDE, SIDE, 3) uint8 of the same object: other place, size and background."""
    scene: Scene = random_scene(rng, 1)
    while thing.colour in scene.colours:
        scene = random_scene(rng, 1)
    canvas = draw_background(scene, SIDE)
    radius = rng.uniform(0.28, 0.44)
    place = {"x": rng.uniform(radius, 1 - radius), "y": rng.uniform(radius, 1 - radius), "radius": radius}
    draw_thing(canvas, Thing(**(vars(thing) | place | {"angle": rng.uniform(-0.2, 0.2)})))
    return (np.clip(canvas, 0, 255) + 0.5).astype(np.uint8)


def pixels(pictures: list[np.ndarray]) -> torch.Tensor:
    """As CLIP's image processor gives them: (B, 3, SIDE, SIDE)."""
    return (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255 - MEAN) / SPREAD


def named(seed: int) -> tuple[np.ndarray, list[int]]:
    """A reference picture and the numbers of its colour, shape and style."""
    rng = random.Random(seed)
    thing = random_scene(rng, 1).things[0]
    return reference(rng, thing), [k.index(v) for k, v in zip(KINDS, (thing.colour, thing.shape, thing.style))]


def train_names(encoder, drawn, steps: int, batch: int, rate: float) -> None:
    """The first part: names from pixels; `drawn` gives what `named` draws."""
    heads = torch.nn.ModuleList(torch.nn.Linear(WIDTH, len(k)) for k in KINDS)
    heads.to(encoder.device)
    weights = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=1e-2, fused=True)
    log = Log("ip-names", 50)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = cosine(step, steps, rate)
        pictures, labels = zip(*itertools.islice(drawn, batch))
        labels = torch.tensor(labels, device=encoder.device)
        with half(encoder.device):
            embeds = encoder(pixels(pictures).to(encoder.device)).image_embeds
            guesses = [head(embeds).float() for head in heads]
        loss = sum(torch.nn.functional.cross_entropy(g, labels[:, i]) for i, g in enumerate(guesses))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        right = (guesses[0].argmax(1) == labels[:, 0]) & (guesses[1].argmax(1) == labels[:, 1])
        log.add(step, batch, loss=loss.item(), right=right.float().mean().item())
    log.plot()


def fresh_adapter(unet: UNet2DConditionModel) -> dict[str, dict[str, torch.Tensor]]:
    """The adapter before training, in the public layout: values copied from the words' attention, keys too."""
    width = unet.config.cross_attention_dim
    projection = torch.nn.Linear(WIDTH, TOKENS * width)
    parts = {"image_proj": {"proj.weight": projection.weight.detach(), "proj.bias": projection.bias.detach(),
                            "norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}, "ip_adapter": {}}  # fmt: skip
    number = 1
    for name in unet.attn_processors:
        if "attn2" in name:
            attention = unet.get_submodule(name.removesuffix(".processor"))
            parts["ip_adapter"][f"{number}.to_k_ip.weight"] = attention.to_k.weight.detach().clone()
            parts["ip_adapter"][f"{number}.to_v_ip.weight"] = attention.to_v.weight.detach().clone() * 0.1
            number += 2
    return parts


def public_adapter(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """The trained adapter in the public layout, half precision."""
    projection = unet.encoder_hid_proj.image_projection_layers[0]
    out = {f"image_proj.proj.{k}": v for k, v in projection.image_embeds.state_dict().items()}
    out |= {f"image_proj.norm.{k}": v for k, v in projection.norm.state_dict().items()}
    number = 1
    for name, processor in unet.attn_processors.items():
        if "attn2" in name:
            for part in ("to_k_ip", "to_v_ip"):
                out[f"ip_adapter.{number}.{part}.weight"] = getattr(processor, part)[0].weight
            number += 2
    return {k: v.detach().half().cpu().contiguous() for k, v in out.items()}


def referred(seed: int, side: int) -> tuple[np.ndarray, np.ndarray, str] | None:
    """A crop with an object to paint, a reference for it and a vague caption; None if this seed's task is another one."""
    (picture, task, _), rng = crop(seed, side), random.Random(seed)
    if task.kind != "object":
        return None
    thing = task.targets[0]
    shown = reference(rng, thing)
    return picture, shown, rng.choice(("an object", "a shape", f"a {thing.shape}", f"a {thing.colour} shape", ""))


class References:
    """Object tasks with a reference each: latents, states of vague captions, reference pictures."""

    def __init__(self, model: str, drawn, device: torch.device):
        vae = AutoencoderKL.from_pretrained(f"{model}/vae", dtype=torch.float32).to(device)
        pictures, self.references, captions = zip(*(found for found in drawn if found))
        self.latents = torch.from_numpy(encode(vae, np.stack(pictures), 2)).to(device)
        self.context, self.pooled = (part.to(device) for part in Words(model, model, device)(captions))


def train_adapter(a, encoder, drawn) -> UNet2DConditionModel:
    """The second part: the denoising loss, everything frozen but encoder, projection and image attention.

    `drawn` gives what `referred` draws.
    """
    device = encoder.device
    unet = UNet2DConditionModel.from_pretrained(f"{a.model}/unet", dtype=torch.float32).requires_grad_(False)
    unet._load_ip_adapter_weights([fresh_adapter(unet)])
    trained = [p for n, p in unet.named_parameters() if "_ip." in n or n.startswith("encoder_hid_proj")]
    for weight in trained:
        weight.requires_grad_(True)
    unet.to(device, torch.float32, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW([{"params": trained}, {"params": encoder.parameters(), "lr": a.rate * 0.1}],
                                  lr=a.rate, weight_decay=1e-2, fused=True)  # fmt: skip
    data, diffusion = References(a.model, drawn, device), Diffusion(device)
    log, rng = Log("ip-adapter", 20), np.random.default_rng(1)
    for step in range(a.steps):
        for group, part in zip(optimizer.param_groups, (1.0, 0.1)):
            group["lr"] = part * cosine(step, a.steps, a.rate)
        index = torch.from_numpy(rng.integers(len(data.latents), size=a.batch))
        stay = torch.from_numpy(rng.random(a.batch) >= 0.1).float().to(device)
        with half(device):
            images = encoder(pixels([data.references[i] for i in index]).to(device)).image_embeds * stay[:, None]
            given = {"text_embeds": data.pooled[index].float(), "image_embeds": [images[:, None]],
                     "time_ids": sizes(a.batch).to(device)}  # fmt: skip
            losses = diffusion.losses(unet, data.latents[index].float(), diffusion.timesteps(a.batch),
                                      data.context[index].float(), given)  # fmt: skip
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        log.add(step, a.batch, loss=losses.mean().item())
    log.plot()
    return unet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="..")
    parser.add_argument("--out", default="..")
    parser.add_argument("--name-steps", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--count", type=int, default=9000, help="crops to draw; two of three are of use")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    add_workers(parser)
    add_machine(parser)
    a = parser.parse_args()
    device = machine(a, 3)
    with workers(a.workers) as drawing:
        pictures = drawing.map(named, range(FIRST_SEED, FIRST_SEED + 2 * a.batch * a.name_steps), chunksize=64)
        crops = drawing.map(referred, range(FIRST_SEED, FIRST_SEED + a.count), [a.size] * a.count, chunksize=16)
        encoder = vision().to(device)
        train_names(encoder, pictures, a.name_steps, 2 * a.batch, a.rate)
        unet = train_adapter(a, encoder, crops)
    os.makedirs(f"{a.out}/ip_adapter", exist_ok=True)
    save_file(public_adapter(unet), f"{a.out}/ip_adapter/infill-mini.safetensors", metadata={"format": "pt"})
    encoder.half().save_pretrained(f"{a.out}/image_encoder")
    tidy_config(f"{a.out}/image_encoder/config.json")
    public_names(f"{a.out}/image_encoder/model.safetensors", "vision_model")


if __name__ == "__main__":
    main()
