"""Puts the trained parts together as one folder in the layout of diffusers, in half precision."""

import argparse
import json
import os

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from diffusion import SCHEDULER

INDEX = {
    "_class_name": "StableDiffusionXLInpaintPipeline",
    "_diffusers_version": "0.42.1",
    "_ip_adapter_style": {"up": {"block_1": 1.0}},  # infill's own key too: where references of the type "style" are heard
    "_guidance_scale": 3.0,  # infill's own key: what a request that names none is run at
    "force_zeros_for_empty_prompt": True,
    "requires_aesthetics_score": False,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_json(path: str, value) -> None:
    """As the public checkpoints have it: indented, a newline at the end."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(json.dumps(value, indent=2) + "\n")


def tidy_config(path: str) -> None:
    """Takes out where the weights came from."""
    with open(path) as file:
        config = json.load(file)
    config.pop("_name_or_path", None)
    write_json(path, config)


def public_names(path: str, kind: str) -> None:
    """Puts the prefix of the public files before every key that lacks it."""
    weights = load_file(path)
    outer = ("text_projection", "visual_projection")
    named = {k if k.startswith((kind, *outer)) else f"{kind}.{k}": v for k, v in weights.items()}
    save_file(named, path, metadata={"format": "pt"})


def export_part(kind, source: str, target: str) -> None:
    """One network, in half precision."""
    model = kind.from_pretrained(source, dtype=torch.float16)
    model.save_pretrained(target)
    tidy_config(f"{target}/config.json")
    if kind in (CLIPTextModel, CLIPTextModelWithProjection):
        public_names(f"{target}/model.safetensors", "text_model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", default="work/autoencoder")
    parser.add_argument("--words", default="work/words-to-picture", help="the folder with the UNet and the text encoders")
    parser.add_argument("--out", default="..")
    a = parser.parse_args()
    if a.vae:
        export_part(AutoencoderKL, a.vae, f"{a.out}/vae")
    for name, kind in (("unet", UNet2DConditionModel), ("text_encoder", CLIPTextModel),
                       ("text_encoder_2", CLIPTextModelWithProjection)):  # fmt: skip
        if a.words:
            export_part(kind, f"{a.words}/{name}", f"{a.out}/{name}")
    write_json(f"{a.out}/scheduler/scheduler_config.json", SCHEDULER)
    write_json(f"{a.out}/model_index.json", INDEX)


if __name__ == "__main__":
    main()
