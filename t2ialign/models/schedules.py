"""Schedules: the noise schedule a model was trained with, from the configuration of whatever sampler it ships.

Law: samplers differ (Euler, DDIM, PNDM, DPM++), the forward process does not; training always uses a
`DDPMScheduler` with the same betas, the same prediction type and the same rescaling to zero terminal SNR.
"""

from __future__ import annotations

from typing import Any

from t2ialign.errors import ModelError
from t2ialign.models.families import PREDICTION_TYPES

_FORWARD = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
)


def training_scheduler(scheduler: Any, name: str = "") -> Any:
    """Builds the `DDPMScheduler` of the forward process behind `scheduler`.

    Only what defines q(x_t | x_0) and the regression target is taken over: betas, `prediction_type` ("epsilon" where
    an old configuration lacks it, as in diffusers) and `rescale_betas_zero_snr` (arXiv 2305.08891, algorithm 1).

    Raises:
        ModelError: The scheduler is not of the variance-preserving kind with betas (EDM, flow matching, consistency
            models without betas), or predicts something else than epsilon, v or the sample.
    """
    from diffusers import DDPMScheduler

    config = scheduler.config
    if "beta_schedule" not in config and config.get("trained_betas") is None:
        raise ModelError(
            f"model {name!r} comes with a {type(scheduler).__name__}, which has no betas; t2ialign trains models of "
            "the DDPM kind (SD 1.x, 2.x, SDXL): choose such a model, or give it the scheduler it was trained with"
        )
    prediction_type = config.get("prediction_type") or "epsilon"
    if prediction_type not in PREDICTION_TYPES:
        raise ModelError(
            f"model {name!r} predicts {prediction_type!r}; t2ialign trains models that predict one of "
            f"{', '.join(PREDICTION_TYPES)}: mend `prediction_type` in scheduler/scheduler_config.json if it is wrong"
        )
    forward = {key: config[key] for key in _FORWARD if config.get(key) is not None}
    return DDPMScheduler(**forward, prediction_type=prediction_type, clip_sample=False)
