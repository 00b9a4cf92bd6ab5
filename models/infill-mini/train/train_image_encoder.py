"""Trains the image encoder of the IP-Adapter: to name colour, shape and style of an object on any background.

The heads that name them are thrown away; `train_ip_adapter.py` goes on with the encoder.
"""

import argparse
import itertools
import random

import numpy as np
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

import words
from common import Log, add_length, add_machine, add_workers, cosine, half, machine, parts, workers
from references import SIDE, reference
from scenes import random_scene

WIDTH = 128
KINDS = (list(words.COLOURS), list(words.SHAPES), list(words.STYLES))
FIRST_SEED = 900_000
DRAWN = 1_000_000  # pictures at most


def vision() -> CLIPVisionModelWithProjection:
    """A small image encoder: 64 pixels, patches of 8."""
    return CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=4, num_attention_heads=4,
        image_size=SIDE, patch_size=8, projection_dim=WIDTH, hidden_act="gelu"))  # fmt: skip


def normalised(pictures: torch.Tensor) -> torch.Tensor:
    """(B, SIDE, SIDE, 3) uint8 to what CLIP's image processor gives: (B, 3, SIDE, SIDE)."""
    mean, spread = (torch.tensor(v, device=pictures.device)[:, None, None] for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return (pictures.permute(0, 3, 1, 2) / 255 - mean) / spread


def named(seed: int) -> tuple[np.ndarray, list[int]]:
    """A reference picture and the numbers of its colour, shape and style."""
    rng = random.Random(seed)
    thing = random_scene(rng, 1).things[0]
    return reference(rng, thing), [k.index(v) for k, v in zip(KINDS, (thing.colour, thing.shape, thing.style))]


def train(a: argparse.Namespace, encoder: CLIPVisionModelWithProjection, drawn) -> None:
    """Names from pixels; `drawn` gives what `named` draws."""
    device = encoder.device
    heads = torch.nn.ModuleList(torch.nn.Linear(WIDTH, len(k)) for k in KINDS).to(device)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], lr=a.rate, weight_decay=1e-2, fused=True)
    log = Log("image-encoder", 50)
    for step, part in parts(a):
        optimizer.param_groups[0]["lr"] = cosine(step, part, a.rate)
        pictures, labels = zip(*itertools.islice(drawn, a.batch))
        labels = torch.tensor(labels).to(device)
        with half(device):
            embeds = encoder(normalised(torch.from_numpy(np.stack(pictures)).to(device))).image_embeds
            guesses = [head(embeds).float() for head in heads]
        loss = sum(torch.nn.functional.cross_entropy(g, labels[:, i]) for i, g in enumerate(guesses))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        right = (guesses[0].argmax(1) == labels[:, 0]) & (guesses[1].argmax(1) == labels[:, 1])
        log.add(step, a.batch, loss=loss, right=right.float().mean())
    log.plot()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="work/image_encoder")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    add_length(parser)
    add_workers(parser)
    add_machine(parser)
    a = parser.parse_args()
    device = machine(a, 3)
    count = a.batch * a.steps if a.steps else DRAWN
    with workers(a.workers) as drawing:
        drawn = drawing.map(named, range(FIRST_SEED, FIRST_SEED + count), chunksize=64)
        encoder = vision().to(device)
        train(a, encoder, drawn)
    encoder.save_pretrained(a.out)


if __name__ == "__main__":
    main()
