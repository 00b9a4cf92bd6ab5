"""Trains the IP-Adapter of a frozen model: the image encoder's projection and the attention to its tokens learn to paint the
object that a reference picture shows.

The model teaches itself. What it predicts when the words name the object is what it shall predict when the words leave it
open and a reference picture shows it. That says more than the noise that was added: nearly all of the error against the noise
is what nobody can know, and the same with any reference (distillation, Hinton et al. 2015).

Only `STYLE`'s attention is trained. The other blocks' values are zero: they say nothing.
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

import together
from common import Log, add_length, add_machine, add_workers, cosine, half, machine, parts, workers
from crops import seeds
from cuts import SMALL
from diffusion import Diffusion, sizes
from export import public_names, tidy_config
from references import reference
from tasks import random_task
from text import Words
from train_image_encoder import WIDTH, normalised
from train_unet import Optimizers

FILE = "ip_adapter/infill-mini.safetensors"
STYLE = "up_blocks.1"  # as `_ip_adapter_style` in export.py
TOKENS = 4
REFERENCES = 2  # pictures of every object
DROPPED = 0.15  # share of the samples without a reference; half of them have no words either
EARLY = (700, 0.4)  # from this time step on is decided what an object looks like; the share of the samples from there
# How fast words lose their worth as the noise goes: the squared distance that they make is as 1 / (1 + KNOWN * snr), measured.
KNOWN = 33.0
MOST_WEIGHT = 30.0


def fresh_adapter(unet: UNet2DConditionModel) -> dict[str, dict[str, torch.Tensor]]:
    """The adapter before training, in the public layout: keys copied from the words' attention, and `STYLE`'s values."""
    width = unet.config.cross_attention_dim
    projection = torch.nn.Linear(WIDTH, TOKENS * width)
    parts = {"image_proj": {"proj.weight": projection.weight.detach(), "proj.bias": projection.bias.detach(),
                            "norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}, "ip_adapter": {}}  # fmt: skip
    number = 1
    for name in unet.attn_processors:
        if "attn2" in name:
            attention = unet.get_submodule(name.removesuffix(".processor"))
            parts["ip_adapter"][f"{number}.to_k_ip.weight"] = attention.to_k.weight.detach().clone()
            parts["ip_adapter"][f"{number}.to_v_ip.weight"] = attention.to_v.weight.detach() * (0.1 * name.startswith(STYLE))
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
    """The cached crops of one size that ask for one object: latents, what the encoder sees in the reference pictures, states of
    captions that are vague and of captions that name the object."""

    def __init__(self, words: Words, encoder: CLIPVisionModelWithProjection, shards: list[tuple[str, range]], drawn):
        latents, images, vague, named = [], [], [], []
        for path, numbers in shards:
            found = list(itertools.islice(drawn, len(numbers)))
            kept = [index for index, pair in enumerate(found) if pair]
            latents.append(torch.from_numpy(np.load(path)["latents"])[kept].to(encoder.device))
            pictures = torch.from_numpy(np.stack([found[index][0] for index in kept])).to(encoder.device)
            with torch.no_grad():
                images.append(encoder(normalised(pictures.flatten(0, 1))).image_embeds.unflatten(0, (-1, REFERENCES)))
            vague += [found[index][1] for index in kept]
            named += [found[index][2] for index in kept]
        self.latents, self.images = torch.cat(latents), torch.cat(images)
        self.vague, self.named = ([part.to(encoder.device) for part in words(captions)] for captions in (vague, named))

    def pixels(self) -> int:
        """How many latents a sample has, height times width."""
        return self.latents[0, 0].numel()


def predict(unet: UNet2DConditionModel, scale: float, noisy: torch.Tensor, timesteps: torch.Tensor, words: list[torch.Tensor],
            images: torch.Tensor, side: torch.Tensor) -> torch.Tensor:  # fmt: skip
    """v with the adapter at `scale`; at 0 it is not there at all. `words`: context and pooled words."""
    for name, processor in unet.attn_processors.items():
        if hasattr(processor, "scale"):
            processor.scale = [scale * name.startswith(STYLE)]
    given = {"text_embeds": words[1], "image_embeds": [images[:, None]], "time_ids": side}
    return unet(noisy, timesteps, words[0], added_cond_kwargs=given).sample.float()


def weights(diffusion: Diffusion, timesteps: torch.Tensor, power: float) -> torch.Tensor:
    """What an error counts at each time step, by what words change there. With all errors alike (`power` 0) colours come
    soonest, and late steps, whose errors guidance enlarges, leave blots; relative to the words (1) it is the other way round."""
    snr = (diffusion.signals / diffusion.spreads)[timesteps].square()
    return (1 + KNOWN * snr).clamp(max=MOST_WEIGHT) ** power


def train(given: tuple[argparse.Namespace, list[References]]) -> None:
    """One process of the training: the lesson of the words, everything frozen but projection and image attention."""
    a, sizes_of_data = given
    device = machine(a, 3 + together.rank())
    unet = UNet2DConditionModel.from_pretrained(f"{a.model}/unet", dtype=torch.float32).requires_grad_(False)
    unet._load_ip_adapter_weights([trained_adapter(f"{a.init}/{FILE}") if a.init else fresh_adapter(unet)])
    for name, weight in unet.named_parameters():
        weight.requires_grad_(name.startswith("encoder_hid_proj") or (name.startswith(STYLE) and "_ip." in name))
    unet.to(device, torch.float32, memory_format=torch.channels_last)
    optimizers, diffusion, log = Optimizers(unet, a.rate), Diffusion(device), Log("ip-adapter", 20)
    together.start_equal(optimizers.all)
    for step, part in parts(a):
        data = sizes_of_data[step % len(sizes_of_data)]
        count = max(1, a.batch * sizes_of_data[0].pixels() // data.pixels() // together.size())
        index = torch.randint(len(data.latents), (count,), device=device)
        chance, early = torch.rand(2, count, device=device)
        seen, said = (chance >= DROPPED).float(), (chance >= DROPPED / 2).float()
        nine, side = data.latents[index].float(), sizes(count).to(device)
        first, share = EARLY
        timesteps = torch.where(early < share, torch.randint(first, 1000, (count,), device=device), diffusion.timesteps(count))
        noisy = diffusion.noisy(nine, timesteps)
        vague, named = ([said.view(-1, *[1] * (part.dim() - 1)) * part[index].float() for part in states]
                        for states in (data.vague, data.named))  # fmt: skip
        lesson = [torch.where(seen.view(-1, *[1] * (n.dim() - 1)) > 0, n, v) for n, v in zip(named, vague)]
        images = data.images[index, torch.randint(REFERENCES, (count,), device=device)] * seen[:, None]
        with half(device):
            with torch.no_grad():
                right = predict(unet, 0.0, noisy, timesteps, lesson, images, side)
            guess = predict(unet, 1.0, noisy, timesteps, vague, images, side)
        each = diffusion.weighed((guess - right).square(), nine)
        loss = (each * weights(diffusion, timesteps, a.late_steps)).mean()
        loss.backward()
        optimizers.step(cosine(step, part, a.rate, a.warmup))
        if together.rank() == 0:
            noisy = timesteps >= first
            log.add(step, count * together.size(), loss=loss, noisy=(each * noisy).sum() / noisy.sum().clamp(min=1))
            if step % 100 == 99:
                save(a.out, unet)
    if together.rank() == 0:
        save(a.out, unet)
        log.plot()


def save(folder: str, unet: UNet2DConditionModel) -> None:
    """Writes the adapter."""
    save_file(public_adapter(unet), f"{folder}/{FILE}.part", metadata={"format": "pt"})
    os.replace(f"{folder}/{FILE}.part", f"{folder}/{FILE}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="..")
    parser.add_argument("--init", help="a folder with the adapter to start from (this model's own will do)")
    parser.add_argument("--image-encoder", default="work/image_encoder")
    parser.add_argument("--data", nargs="+", default=["work/unet/256-*.npz"], help="the shards; several sizes take turns")
    parser.add_argument("--shards", type=int, default=40, help="how many of each size at most; two of three samples are of use")
    parser.add_argument("--out", default="..")
    parser.add_argument("--batch", type=int, default=64, help="of the first size; of the others as many pixels")
    parser.add_argument("--rate", type=float, default=2e-2)
    parser.add_argument("--late-steps", type=float, default=0.75, help="how much they count: see weights()")
    parser.add_argument("--warmup", type=int, default=30)
    parser.add_argument("--processes", type=int, default=1, help="that share the batch; --threads each")
    add_length(parser)
    add_workers(parser)
    add_machine(parser)
    a = parser.parse_args()
    if a.minutes and a.processes > 1:
        raise SystemExit("--minutes is for one process: several would not agree on the time")
    shards = [[(path, seeds(*map(int, re.search(r"(\d+)-(\d+)\.npz$", path).groups()))) for path in sorted(glob.glob(pattern))]
              for pattern in a.data]  # fmt: skip
    shards = [found[: a.shards] for found in shards]
    with workers(a.workers) as drawing:
        numbers = itertools.chain(*(numbers for found in shards for _, numbers in found))
        drawn = iter(drawing.map(referred, numbers, chunksize=32))
        device = machine(a)
        encoder = CLIPVisionModelWithProjection.from_pretrained(a.image_encoder, dtype=torch.float32).to(device)
        words = Words(a.model, a.model, device)
        data = [References(words, encoder, found, drawn) for found in shards]
    os.makedirs(f"{a.out}/ip_adapter", exist_ok=True)
    encoder.half().save_pretrained(f"{a.out}/image_encoder")
    tidy_config(f"{a.out}/image_encoder/config.json")
    public_names(f"{a.out}/image_encoder/model.safetensors", "vision_model")
    together.run(train, (a, data), a.processes)


if __name__ == "__main__":
    main()
