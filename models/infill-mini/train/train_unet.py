"""Trains the UNet and both text encoders together on cached latents: v-prediction, zero terminal signal-to-noise."""

import argparse
import os

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

import networks
from common import Average, Log, add_machine, cosine, half, machine
from schedule import SCHEDULER, signal_and_noise

KNOWN_WEIGHT = 0.2  # of the loss outside the hole
CLEAR = 5.0  # samples with a higher signal-to-noise ratio weigh less: detail that the eye does not miss
DROPPED_WORDS = 0.12  # share of the samples whose words are zeroed, for guidance


class Latents:
    """Shuffled batches of the cached latents, epoch after epoch."""

    def __init__(self, path: str, seed: int):
        cached = np.load(path)
        self.latents, self.ids_1, self.ids_2 = cached["latents"], cached["ids_1"], cached["ids_2"]
        self.rng, self.order = np.random.default_rng(seed), np.empty(0, np.int64)

    def batch(self, count: int) -> dict[str, torch.Tensor]:
        """Nine channels of latents, the token ids of both tokenizers, the sizes, and which words stay."""
        if len(self.order) < count:
            self.order = self.rng.permutation(len(self.latents))
        index, self.order = self.order[:count], self.order[count:]
        nine = torch.from_numpy(self.latents[index].astype(np.float32))
        side = nine.shape[-1] * 8.0
        return {
            "nine": nine.contiguous(memory_format=torch.channels_last),
            "ids_1": torch.from_numpy(self.ids_1[index].astype(np.int64)),
            "ids_2": torch.from_numpy(self.ids_2[index].astype(np.int64)),
            "time_ids": torch.tensor([side, side, 0.0, 0.0, side, side]).repeat(count, 1),
            "stay": torch.from_numpy((self.rng.random(count) >= DROPPED_WORDS).astype(np.float32)),
        }


def words(text_1, text_2, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The context (B, 77, width) and the pooled words (B, width), zero where they are dropped."""
    first = text_1(batch["ids_1"], output_hidden_states=True)
    second = text_2(batch["ids_2"], output_hidden_states=True)
    context = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    return context * batch["stay"][:, None, None], second.text_embeds * batch["stay"][:, None]


def loss_of(unet, text_1, text_2, batch, noise, timesteps, signal, spread) -> torch.Tensor:
    """The weighted squared error of v, a number per sample."""
    context, pooled = words(text_1, text_2, batch)
    clean, mask = batch["nine"][:, :4], batch["nine"][:, 4:5]
    noisy = signal * clean + spread * noise
    given = {"text_embeds": pooled, "time_ids": batch["time_ids"]}
    model_input = torch.cat([noisy, batch["nine"][:, 4:]], dim=1)
    v = unet(model_input, timesteps, context, added_cond_kwargs=given).sample.float()
    weight = KNOWN_WEIGHT + (1 - KNOWN_WEIGHT) * mask
    error = (v - (signal * noise - spread * clean)).square().mean(1, keepdim=True)
    return (error * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))


def load(init: str | None, vocabulary: int):
    """The three networks, fresh or from a folder in the layout of diffusers."""
    if not init:
        return networks.unet(), *networks.text_encoders(vocabulary)
    kinds = (("unet", UNet2DConditionModel), ("text_encoder", CLIPTextModel),
             ("text_encoder_2", CLIPTextModelWithProjection))  # fmt: skip
    return tuple(kind.from_pretrained(f"{init}/{name}", dtype=torch.float32) for name, kind in kinds)


def save(folder: str, average: Average, models: dict, optimizer) -> None:
    """Writes the averaged weights in the layout of diffusers, and what it takes to go on exactly."""
    average.swap()
    for name, model in models.items():
        model.save_pretrained(f"{folder}/{name}")
    average.swap()
    weights = {name: model.state_dict() for name, model in models.items()}
    torch.save({"weights": weights, "optimizer": optimizer.state_dict()}, f"{folder}/state.pt.part")
    os.replace(f"{folder}/state.pt.part", f"{folder}/state.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", default="work/unet")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--init", help="a folder to start from (this model's own will do)")
    parser.add_argument("--out", default="work/words-to-picture")
    parser.add_argument("--vocabulary", type=int, default=808)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--floor", type=float, default=0.3, help="the last learning rate as a part of --rate")
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--decay", type=float, default=0.998, help="of the moving average")
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    add_machine(parser)
    parser.add_argument("--compile", action="store_true")
    a = parser.parse_args()
    device = machine(a, a.seed)
    names = ("unet", "text_encoder", "text_encoder_2")
    models = dict(zip(names, load(a.init, a.vocabulary)))
    for model in models.values():
        model.to(device).train()
    models["unet"].to(memory_format=torch.channels_last)
    weights = [p for m in models.values() for p in m.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=a.rate, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    average, data, log = Average(models, a.decay), Latents(f"{a.pool}/latents{a.size}.npz", a.seed), Log("unet", 50)
    if a.init and os.path.exists(f"{a.init}/state.pt"):
        state = torch.load(f"{a.init}/state.pt", map_location=device)
        optimizer.load_state_dict(state["optimizer"])
        for name, model in models.items():
            model.load_state_dict(state["weights"][name])
        average.steps = 1000
    signals, spreads = (x.to(device) for x in signal_and_noise(EulerDiscreteScheduler.from_config(SCHEDULER)))
    one_loss = torch.compile(loss_of, dynamic=False) if a.compile else loss_of
    for step in range(a.steps):
        optimizer.param_groups[0]["lr"] = cosine(step, a.steps, a.rate, a.warmup, a.floor)
        batch = {name: value.to(device) for name, value in data.batch(a.batch).items()}
        noise = torch.randn(batch["nine"][:, :4].shape).to(device, memory_format=torch.channels_last)
        # One time step from each of `batch` equal parts: less variance than independent draws.
        timesteps = ((torch.arange(a.batch) + torch.rand(a.batch)) * (1000 / a.batch)).long()
        timesteps = timesteps[torch.randperm(a.batch)].clamp(0, 999).to(device)
        signal, spread = (x[timesteps][:, None, None, None] for x in (signals, spreads))
        with half(device):
            each = one_loss(models["unet"], models["text_encoder"], models["text_encoder_2"],
                            batch, noise, timesteps, signal, spread)  # fmt: skip
        importance = (CLEAR / (1 + (signal / spread).square())).clamp(max=1)[:, 0, 0, 0]
        (each * importance).mean().backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update()
        each = each.detach()
        noisy = timesteps >= 700
        log.add(step, a.batch, size=a.size, loss=each.mean().item(),
                weighted=(each * importance).mean().item(), noisy=each[noisy].mean().item())  # fmt: skip
        if (step + 1) % a.save_every == 0 or step + 1 == a.steps:
            save(a.out, average, models, optimizer)
            log.plot()


if __name__ == "__main__":
    main()
