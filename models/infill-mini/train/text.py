"""The two text encoders and what the UNet reads of them."""

import os

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import networks

KINDS = ((CLIPTextModel, "text_encoder"), (CLIPTextModelWithProjection, "text_encoder_2"))


def load(folder: str | None, vocabulary: int = 0):
    """Both encoders, fresh with so many tokens, or from a folder in the layout of diffusers."""
    if not folder:
        return networks.text_encoders(vocabulary)
    return tuple(kind.from_pretrained(f"{folder}/{name}", dtype=torch.float32) for kind, name in KINDS)


def words_of(text_1, text_2, ids_1: torch.Tensor, ids_2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The context (B, tokens, width) and the pooled words (B, width), as SDXL's UNet gets them."""
    first = text_1(ids_1, output_hidden_states=True)
    second = text_2(ids_2, output_hidden_states=True)
    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), second.text_embeds


def tokenizers(folder: str) -> list[CLIPTokenizer]:
    """Both tokenizers of a folder in the layout of diffusers."""
    return [CLIPTokenizer.from_pretrained(os.path.join(folder, name)) for name in ("tokenizer", "tokenizer_2")]


class Words:
    """The states of captions by frozen encoders."""

    def __init__(self, folder: str, tokenizer_folder: str, device: torch.device):
        self.encoders = [encoder.to(device).eval().requires_grad_(False) for encoder in load(folder)]
        self.tokenizers = tokenizers(tokenizer_folder)

    @torch.no_grad()
    def __call__(self, captions: list[str], batch: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
        """Context (count, 77, width) and pooled words (count, width) of all captions, in half precision."""
        ids = [
            torch.tensor(t(captions, padding="max_length", max_length=77, truncation=True).input_ids)
            for t in self.tokenizers
        ]
        device = self.encoders[0].device
        parts = [
            [part.half().cpu() for part in words_of(*self.encoders, *(i[start : start + batch].to(device) for i in ids))]
            for start in range(0, len(captions), batch)
        ]
        return tuple(torch.cat(column) for column in zip(*parts))
