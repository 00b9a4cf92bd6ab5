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

    def noisy(self, nine: torch.Tensor, timesteps: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """What the UNet gets: `nine` (B, 9, h, w) as `encode` makes it, with noise in its first four channels."""
        noise = torch.randn_like(nine[:, :4]) if noise is None else noise
        noisy = torch.cat([self.mixed(nine[:, :4], noise, timesteps), nine[:, 4:]], dim=1)
        return noisy.contiguous(memory_format=torch.channels_last)

    def losses(self, unet: UNet2DConditionModel, nine: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor,
               given: dict) -> torch.Tensor:  # fmt: skip
        """The weighted squared error of v, a number per sample."""
        clean = nine[:, :4]
        noise = torch.randn(clean.shape, device=clean.device)
        v = unet(self.noisy(nine, timesteps, noise), timesteps, context, added_cond_kwargs=given).sample.float()
        right = self._of(self.signals, timesteps) * noise - self._of(self.spreads, timesteps) * clean
        return self.weighed((v - right).square(), nine)

    def split(self, noisy: torch.Tensor, v: torch.Tensor, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The clean latents and the noise that `noisy` ones are made of, if `v` is right."""
        signal, spread = self._of(self.signals, timesteps), self._of(self.spreads, timesteps)
        return signal * noisy - spread * v, spread * noisy + signal * v

    def mixed(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Both together as they are at `timesteps`."""
        return self._of(self.signals, timesteps) * clean + self._of(self.spreads, timesteps) * noise

    def weighed(self, error: torch.Tensor, nine: torch.Tensor) -> torch.Tensor:
        """The mean of `error` (B, 4, h, w), mostly of that in the hole, a number per sample."""
        weight = KNOWN_WEIGHT + (1 - KNOWN_WEIGHT) * nine[:, 4:5]
        return (error.mean(1, keepdim=True) * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))

    def _of(self, values: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return values[timesteps][:, None, None, None]
