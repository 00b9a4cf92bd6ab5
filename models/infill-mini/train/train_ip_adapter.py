"""Trains the IP-Adapter of a frozen model: the image encoder, its projection and the attention to its tokens learn to paint
the object that a reference picture shows."""

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
DROPPED = 0.1  # share of the samples without the reference, and of those without words


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


def referred(seed: int) -> tuple[np.ndarray, str] | None:
    """References for the object that this seed's task asks for and a vague caption; None if it asks for no single object."""
    task, rng = random_task(seed, SMALL), random.Random(seed)
    if task.kind != "object":
        return None
    thing = task.targets[0]
    caption = rng.choice(("an object", "a shape", f"a {thing.shape}", f"a {thing.colour} shape", ""))
    return np.stack([reference(rng, thing) for _ in range(REFERENCES)]), caption


class References:
    """The cached crops that ask for one object: latents, states of vague captions, reference pictures."""

    def __init__(self, model: str, shards: list[tuple[str, range]], drawn, device: torch.device):
        latents, references, captions = [], [], []
        for path, numbers in shards:
            found = list(itertools.islice(drawn, len(numbers)))
            kept = [index for index, pair in enumerate(found) if pair]
            latents.append(torch.from_numpy(np.load(path)["latents"])[kept].to(device))
            references.append(torch.from_numpy(np.stack([found[index][0] for index in kept])).to(device))
            captions += [found[index][1] for index in kept]
        self.latents, self.references = torch.cat(latents), torch.cat(references)
        self.context, self.pooled = (part.to(device) for part in Words(model, model, device)(captions))


def train(a: argparse.Namespace, encoder: CLIPVisionModelWithProjection, data: References) -> UNet2DConditionModel:
    """The denoising loss, everything frozen but encoder, projection and image attention."""
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
        seen, said = (torch.rand(2, a.batch, device=device) >= DROPPED).float()
        with half(device):
            images = encoder(normalised(shown)).image_embeds * seen[:, None]
            given = {"text_embeds": data.pooled[index].float() * said[:, None], "image_embeds": [images[:, None]],
                     "time_ids": sizes(a.batch).to(device)}  # fmt: skip
            losses = diffusion.losses(unet, data.latents[index].float(), diffusion.timesteps(a.batch),
                                      data.context[index].float() * said[:, None, None], given)  # fmt: skip
        descend(losses.mean(), trained, optimizer)
        log.add(step, a.batch, loss=losses.mean())
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
