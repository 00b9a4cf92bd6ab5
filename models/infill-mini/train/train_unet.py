"""Trains the UNet on cached latents and words: v-prediction, zero terminal signal-to-noise.

With `--teacher` the UNet learns what another one predicts, which is told all words (distillation, Hinton et al. 2015): what it
can do stays, and it learns to do it with the pooled words vague.
"""

import argparse
import glob
import json
import os
import threading
import time

import numpy as np
import torch
from diffusers import UNet2DConditionModel

import networks
import together
from common import Average, Log, add_length, add_machine, cosine, half, machine, parts
from diffusion import Diffusion, sizes
from muon import Muon
from text import Words

VAGUE = ("a shape", "an object")  # pooled words that say little; no pooled words at all are as frequent as each


class Latents:
    """Shuffled batches of the cached latents, epoch after epoch; shards that appear meanwhile are taken in.

    Processes that train together share the shards among them.
    """

    def __init__(self, pattern: str, words: Words, shares: argparse.Namespace, seed: int, device: torch.device):
        self.pattern, self.words, self.shares, self.device, self.seen = pattern, words, shares, device, set()
        said = words(list(VAGUE))[1].float().to(device)
        self.little = torch.cat([said, torch.zeros_like(said[:1])])
        self.rng, self.order = np.random.default_rng(seed), np.empty(0, np.int64)
        # Nine channels of latents, context, pooled words, all in half precision; whether the caption is empty.
        self.parts: tuple[torch.Tensor, ...] = ()
        self.found: list[tuple[torch.Tensor, ...]] = []  # what shards hold that are not in `parts` yet
        self.watcher: threading.Thread | None = None
        self.look()
        self.take()

    def look(self) -> None:
        """Reads the shards that are new."""
        for number, path in enumerate(sorted(glob.glob(self.pattern))):
            if path in self.seen or number % together.size() != together.rank():
                continue
            self.seen.add(path)
            cached = np.load(path)
            captions = json.loads(str(cached["captions"]))
            empty = torch.tensor([caption == "" for caption in captions])
            found = (torch.from_numpy(cached["latents"]), *self.words(captions), empty)
            self.found.append(tuple(part.to(self.device) for part in found))

    def watch(self, seconds: float = 1.0) -> None:
        """Looks for new shards beside the training from now on, so that it never waits for them."""

        def forever() -> None:
            while True:
                time.sleep(seconds)
                self.look()

        self.watcher = threading.Thread(target=forever, daemon=True)
        self.watcher.start()

    def take(self) -> None:
        """Puts what was found to the rest."""
        found = [self.found.pop(0) for _ in range(len(self.found))]
        if found:
            self.parts = tuple(torch.cat(column) for column in zip(*([self.parts] if self.parts else []), *found))

    def ready(self) -> bool:
        """Whether there is anything to learn from."""
        if not self.parts:
            self.take()
        return bool(self.parts)

    def pixels(self) -> int:
        """How many latents a sample has, height times width."""
        return self.parts[0][0, 0].numel()

    def epoch(self) -> np.ndarray:
        """Every sample once, those with an empty caption oftener where their share would be too low."""
        empty = self.parts[-1].cpu().numpy()
        wanted = self.shares.empty / (1 - self.shares.empty) * np.count_nonzero(~empty)
        more = max(0, round(wanted) - np.count_nonzero(empty)) if empty.any() else 0
        return self.rng.permutation(np.concatenate([np.arange(len(empty)), self.rng.choice(np.flatnonzero(empty), more)]))

    def batch(self, count: int) -> dict[str, torch.Tensor]:
        """Nine channels of latents, context, pooled words (both zero where words are dropped), those a teacher gets, sizes."""
        if len(self.order) < count:
            if not self.watcher:
                self.look()
            self.take()
            self.order = self.epoch()
        index, self.order = torch.from_numpy(self.order[:count]).to(self.device), self.order[count:]
        stay = torch.from_numpy((self.rng.random(count) >= self.shares.dropped).astype(np.float32)).to(self.device)
        nine, context, whole, empty = (part[index].float() for part in self.parts)
        vague = torch.from_numpy(self.rng.random(count) < self.shares.vague).to(self.device) & (empty == 0)
        little = self.little[torch.from_numpy(self.rng.integers(len(self.little), size=count)).to(self.device)]
        return {
            "nine": nine,
            "context": context * stay[:, None, None],
            "pooled": torch.where(vague[:, None], little, whole) * stay[:, None],
            "whole": whole * stay[:, None],
            "time_ids": sizes(count).to(self.device),
        }


class Optimizers:
    """Of what is trained: Muon for the matrices inside, AdamW for everything else."""

    def __init__(self, unet: UNet2DConditionModel, rate: float):
        inside = lambda name, p: p.ndim >= 2 and not name.startswith(("conv_in", "conv_out"))  # noqa: E731
        named = [(name, p) for name, p in unet.named_parameters() if p.requires_grad]
        self.all = [p for _, p in named]
        self.parts = (
            Muon([p for n, p in named if inside(n, p)], lr=rate),
            torch.optim.AdamW([p for n, p in named if not inside(n, p)], lr=rate, betas=(0.9, 0.99), weight_decay=0.0),
        )

    def step(self, rate: float) -> None:
        """Steps both, together with the other processes, and forgets the gradients."""
        together.mean_gradients(self.all)
        torch.nn.utils.clip_grad_norm_(self.all, 1.0)
        for part in self.parts:
            part.param_groups[0]["lr"] = rate
            part.step()
            part.zero_grad(set_to_none=True)


def save(folder: str, average: Average, unet: UNet2DConditionModel) -> None:
    """Writes the averaged weights in the layout of diffusers, and the weights themselves to go on from."""
    average.swap()
    unet.save_pretrained(f"{folder}/unet")
    average.swap()
    torch.save(unet.state_dict(), f"{folder}/weights.pt.part")
    os.replace(f"{folder}/weights.pt.part", f"{folder}/weights.pt")


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["work/unet/256-*.npz"], help="the shards; several sizes take turns")
    parser.add_argument("--unet", help="a folder with the UNet to start from (this model's own will do)")
    parser.add_argument("--teacher", help="a folder with the UNet whose predictions to learn, in place of the noise")
    parser.add_argument("--only", nargs="+", help="train the weights alone whose names begin so; all without it")
    parser.add_argument("--vague", type=float, default=0.3, help="share of the captions whose pooled words say little")
    parser.add_argument("--empty", type=float, default=0.0, help="the least share of the samples that have an empty caption")
    parser.add_argument("--dropped", type=float, default=0.12, help="share of the samples whose words are zeroed, for guidance")
    parser.add_argument("--words", default="work/words-to-picture", help="a folder with the text encoders")
    parser.add_argument("--tokenizer", default="..")
    parser.add_argument("--out", default="work/words-to-picture")
    add_length(parser)
    parser.add_argument("--late", type=float, default=0.0, help="the first size is alone for this part of the training")
    parser.add_argument("--batch", type=int, default=32, help="of the first size; of the others as many pixels")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--floor", type=float, default=0.3, help="the last learning rate as a part of --rate")
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--decay", type=float, default=0.998, help="of the moving average")
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", default="unet")
    parser.add_argument("--processes", type=int, default=1, help="that share the batch; --threads each")
    parser.add_argument("--compile", action="store_true", help="worth its minute on a GPU")
    add_machine(parser)
    return parser.parse_args()


def train(a: argparse.Namespace) -> None:
    """One process of the training."""
    device = machine(a, a.seed + together.rank())
    unet = UNet2DConditionModel.from_pretrained(f"{a.unet}/unet", dtype=torch.float32) if a.unet else networks.unet()
    for name, weight in unet.named_parameters():
        weight.requires_grad_(not a.only or name.startswith(tuple(a.only)))
    unet.to(device, memory_format=torch.channels_last).train()
    optimizers, average, log = Optimizers(unet, a.rate), Average({"unet": unet}, a.decay), Log(a.log, 50)
    words = Words(a.words, a.tokenizer, device)
    sizes_of_data = [Latents(pattern, words, a, a.seed + together.rank(), device) for pattern in a.data]
    if a.minutes:
        for data in sizes_of_data:
            data.watch()
    while not sizes_of_data[0].ready():
        time.sleep(0.1)
    if a.unet and os.path.exists(f"{a.unet}/weights.pt"):
        unet.load_state_dict(torch.load(f"{a.unet}/weights.pt", map_location=device))
    together.start_equal(optimizers.all)
    diffusion = Diffusion(device)
    teacher = UNet2DConditionModel.from_pretrained(f"{a.teacher}/unet", dtype=torch.float32) if a.teacher else None
    if teacher:
        teacher.requires_grad_(False).to(device, memory_format=torch.channels_last)
    predict = torch.compile(unet, dynamic=False) if a.compile else unet
    for step, part in parts(a):
        turns = [data for data in sizes_of_data if data.ready()] if part >= a.late else sizes_of_data[:1]
        data = turns[step % len(turns)]
        count = max(1, a.batch * sizes_of_data[0].pixels() // data.pixels() // together.size())
        batch = data.batch(count)
        timesteps = diffusion.timesteps(count)
        given = {"text_embeds": batch["pooled"], "time_ids": batch["time_ids"]}
        with half(device):
            if teacher:
                noisy, context = diffusion.noisy(batch["nine"], timesteps), batch["context"]
                with torch.no_grad():
                    right = teacher(noisy, timesteps, context, added_cond_kwargs=given | {"text_embeds": batch["whole"]}).sample
                guess = predict(noisy, timesteps, context, added_cond_kwargs=given).sample
                each = diffusion.weighed((guess - right).float().square(), batch["nine"])
            else:
                each = diffusion.losses(predict, batch["nine"], timesteps, batch["context"], given)
        each.mean().backward()
        optimizers.step(cosine(step, part, a.rate, a.warmup, a.floor))
        average.update()
        if together.rank():
            continue
        late = timesteps >= 700
        log.add(step, count * together.size(), loss=each.mean(), noisy=(each * late).sum() / late.sum().clamp(min=1))
        if (step + 1) % a.save_every == 0:
            save(a.out, average, unet)
            log.plot()
    if together.rank() == 0:
        save(a.out, average, unet)
        log.plot()


if __name__ == "__main__":
    arguments = options()
    if arguments.minutes and arguments.processes > 1:
        raise SystemExit("--minutes is for one process: several would not agree on the time")
    together.run(train, arguments, arguments.processes)
