"""The noise schedule (SDXL's, rescaled so that the last step is pure noise, with v-prediction) and the loss under it."""

import torch
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel

SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "steps_offset": 1,
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
}

KNOWN_WEIGHT = 0.1  # of the loss outside the hole
CLEAR = 12.0  # time steps with a higher signal-to-noise ratio are drawn less often: detail that the eye does not miss
SIDES = torch.arange(256, 1025, 64)  # of the sizes that the UNet is told: any, so that it learns to pass over them


def sizes(count: int) -> torch.Tensor:
    """Time ids (count, 6) as SDXL's: the size of the original, the crop's corner, the size asked for."""
    height, width = (SIDES[torch.randint(len(SIDES), (count,))].float() for _ in range(2))
    corner = torch.zeros(count)
    return torch.stack([height, width, corner, corner, height, width], dim=1)


class Diffusion:
    """Draws time steps and noise, and measures how well a UNet predicts v from them."""

    def __init__(self, device: torch.device):
        alphas = EulerDiscreteScheduler.from_config(SCHEDULER).alphas_cumprod.float().to(device)
        self.signals, self.spreads = alphas.sqrt(), (1 - alphas).sqrt()
        self.shares = (CLEAR / (1 + alphas / (1 - alphas))).clamp(max=1).cumsum(0)

    def timesteps(self, count: int) -> torch.Tensor:
        """One time step from each of `count` equal parts, shuffled: less variance than independent draws."""
        drawn = (torch.arange(count) + torch.rand(count)) / count
        drawn = drawn[torch.randperm(count)].to(self.shares.device) * self.shares[-1]
        return torch.searchsorted(self.shares, drawn).clamp(0, 999)

    def losses(self, unet: UNet2DConditionModel, nine: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor,
               given: dict) -> torch.Tensor:  # fmt: skip
        """The weighted squared error of v, a number per sample; `nine` (B, 9, h, w) as `encode` makes it."""
        clean, mask = nine[:, :4], nine[:, 4:5]
        signal, spread = (x[timesteps][:, None, None, None] for x in (self.signals, self.spreads))
        noise = torch.randn(clean.shape, device=clean.device)
        noisy = torch.cat([signal * clean + spread * noise, nine[:, 4:]], dim=1)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        v = unet(noisy, timesteps, context, added_cond_kwargs=given).sample.float()
        weight = KNOWN_WEIGHT + (1 - KNOWN_WEIGHT) * mask
        error = (v - (signal * noise - spread * clean)).square().mean(1, keepdim=True)
        return (error * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))
