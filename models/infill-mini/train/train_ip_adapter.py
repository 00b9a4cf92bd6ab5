"""Trains the IP-Adapter of a frozen model: the image encoder, its projection and the attention to its tokens learn to paint
the object that a reference picture shows.

The model teaches itself. What it predicts when the words name the object is what it shall predict when the words leave it
open and a reference picture shows it. That says more than the noise that was added: nearly all of the error against the noise
is what nobody can know, and the same with any reference (distillation, Hinton et al. 2015).
"""

import argparse
import glob
import itertools
import os
import random
import re

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModelWithProjection

from common import Log, add_length, add_machine, add_workers, cosine, descend, half, machine, parts, workers
from crops import seeds
from cuts import SMALL
from diffusion import Diffusion, sizes
from export import public_names, tidy_config
from references import reference
from tasks import random_task
from text import Words
from train_image_encoder import WIDTH, normalised

FILE = "ip_adapter/infill-mini.safetensors"
TOKENS = 4
REFERENCES = 2  # pictures of every object
DROPPED = 0.2  # share of the samples without a reference; half of them have no words either


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


def trained_adapter(path: str) -> dict[str, dict[str, torch.Tensor]]:
    """An adapter in the public layout, in full precision."""
    parts: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in load_file(path).items():
        part, name = key.split(".", 1)
        parts[part][name] = value.float()
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


def referred(seed: int) -> tuple[np.ndarray, str, str] | None:
    """References for the object that this seed's task asks for, a vague caption and one that names it; None if the task asks
    for no single object."""
    task, rng = random_task(seed, SMALL), random.Random(seed)
    if task.kind != "object":
        return None
    thing = task.targets[0]
    vague = rng.choice(("an object", "a shape", "a shape", f"a {thing.shape}", f"a {thing.colour} shape", ""))
    return np.stack([reference(rng, thing) for _ in range(REFERENCES)]), vague, task.caption


class References:
    """The cached crops that ask for one object: latents, reference pictures, states of captions that are vague and of captions
    that name the object."""

    def __init__(self, model: str, shards: list[tuple[str, range]], drawn, device: torch.device):
        latents, references, vague, named = [], [], [], []
        for path, numbers in shards:
            found = list(itertools.islice(drawn, len(numbers)))
            kept = [index for index, pair in enumerate(found) if pair]
            latents.append(torch.from_numpy(np.load(path)["latents"])[kept].to(device))
            references.append(torch.from_numpy(np.stack([found[index][0] for index in kept])).to(device))
            vague += [found[index][1] for index in kept]
            named += [found[index][2] for index in kept]
        self.latents, self.references = torch.cat(latents), torch.cat(references)
        words = Words(model, model, device)
        self.vague, self.named = ([part.to(device) for part in words(captions)] for captions in (vague, named))

def predict(unet: UNet2DConditionModel, scale: float, noisy: torch.Tensor, timesteps: torch.Tensor, words: list[torch.Tensor],
            images: torch.Tensor, side: torch.Tensor) -> torch.Tensor:  # fmt: skip
    """v with the adapter at `scale`; at 0 it is not there at all. `words`: context and pooled words."""
    for processor in unet.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [scale]
    given = {"text_embeds": words[1], "image_embeds": [images[:, None]], "time_ids": side}
    return unet(noisy, timesteps, words[0], added_cond_kwargs=given).sample.float()


def train(a: argparse.Namespace, encoder: CLIPVisionModelWithProjection, data: References) -> UNet2DConditionModel:
    """The lesson of the words, everything frozen but encoder, projection and image attention."""
    device = encoder.device
    unet = UNet2DConditionModel.from_pretrained(f"{a.model}/unet", dtype=torch.float32).requires_grad_(False)
    unet._load_ip_adapter_weights([trained_adapter(f"{a.init}/{FILE}") if a.init else fresh_adapter(unet)])
    trained = [p for n, p in unet.named_parameters() if "_ip." in n or n.startswith("encoder_hid_proj")]
    for weight in trained:
        weight.requires_grad_(True)
    unet.to(device, torch.float32, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW([{"params": trained}, {"params": encoder.parameters(), "lr": a.rate * 0.1}],
                                  lr=a.rate, weight_decay=1e-2, fused=True)  # fmt: skip
    diffusion, log = Diffusion(device), Log("ip-adapter", 20)
    for step, part in parts(a):
        for group, share in zip(optimizer.param_groups, (1.0, 0.1)):
            group["lr"] = share * cosine(step, part, a.rate)
        index = torch.randint(len(data.latents), (a.batch,), device=device)
        shown = data.references[index, torch.randint(REFERENCES, (a.batch,), device=device)]
        chance = torch.rand(a.batch, device=device)
        seen, said = (chance >= DROPPED).float(), (chance >= DROPPED / 2).float()
        nine, timesteps, side = data.latents[index].float(), diffusion.timesteps(a.batch), sizes(a.batch).to(device)
        noisy = diffusion.noisy(nine, timesteps)
        vague, named = ([said.view(-1, *[1] * (part.dim() - 1)) * part[index].float() for part in states]
                        for states in (data.vague, data.named))  # fmt: skip
        lesson = [torch.where(seen.view(-1, *[1] * (n.dim() - 1)) > 0, n, v) for n, v in zip(named, vague)]
        with half(device):
            images = encoder(normalised(shown)).image_embeds * seen[:, None]
            with torch.no_grad():
                right = predict(unet, 0.0, noisy, timesteps, lesson, images, side)
            guess = predict(unet, 1.0, noisy, timesteps, vague, images, side)
        loss = diffusion.weighed((guess - right).square(), nine).mean()
        descend(loss, trained, optimizer)
        log.add(step, a.batch, loss=loss)
    log.plot()
    return unet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="..")
    parser.add_argument("--init", help="a folder with the adapter and the image encoder to start from (this model's own will do)")
    parser.add_argument("--image-encoder", default="work/image_encoder", help="without --init")
    parser.add_argument("--data", default="work/unet/256-*.npz", help="the shards; they are crops for the UNet's training")
    parser.add_argument("--shards", type=int, default=40, help="how many of them at most; two of three samples are of use")
    parser.add_argument("--out", default="..")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    add_length(parser)
    add_workers(parser)
    add_machine(parser)
    a = parser.parse_args()
    device = machine(a, 3)
    shards = [(path, seeds(*map(int, re.search(r"(\d+)-(\d+)\.npz$", path).groups()))) for path in sorted(glob.glob(a.data))]
    shards = shards[: a.shards]
    with workers(a.workers) as drawing:
        drawn = iter(drawing.map(referred, itertools.chain(*(numbers for _, numbers in shards)), chunksize=32))
        data = References(a.model, shards, drawn, device)
    source = f"{a.init}/image_encoder" if a.init else a.image_encoder
    encoder = CLIPVisionModelWithProjection.from_pretrained(source, dtype=torch.float32).to(device)
    unet = train(a, encoder, data)
    os.makedirs(f"{a.out}/ip_adapter", exist_ok=True)
    save_file(public_adapter(unet), f"{a.out}/{FILE}", metadata={"format": "pt"})
    encoder.half().save_pretrained(f"{a.out}/image_encoder")
    tidy_config(f"{a.out}/image_encoder/config.json")
    public_names(f"{a.out}/image_encoder/model.safetensors", "vision_model")


if __name__ == "__main__":
    main()
