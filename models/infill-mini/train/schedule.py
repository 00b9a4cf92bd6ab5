"""The noise schedule: SDXL's, rescaled so that the last step is pure noise, with v-prediction."""

import torch

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


def signal_and_noise(scheduler) -> tuple[torch.Tensor, torch.Tensor]:
    """The factors of picture and noise at each of the 1000 time steps, those that the scheduler samples with."""
    alphas = scheduler.alphas_cumprod.float()
    return alphas.sqrt(), (1 - alphas).sqrt()
