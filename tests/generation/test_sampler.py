"""The sampler: equal to the plain pipeline, independent of batching, and leaving everything as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.tiny import tiny_pipeline, tiny_scheduler
from t2ialign.errors import ConfigError
from t2ialign.generation.options import SCHEDULERS
from t2ialign.generation.sampler import generate_images
from t2ialign.models.diffusion import DiffusionModel

PROMPTS = ["a red circle", "a blue star on black", "", "a very long prompt " * 20, "green"]
SEEDS = [11, 12, 13, 2**62 + 5, 15]


def model(family: str, **more: Any) -> DiffusionModel:
    return DiffusionModel.from_pipeline(tiny_pipeline(family, **more), family)


def difference(first: list[Image.Image], second: list[Image.Image]) -> int:
    pairs = zip(first, second, strict=True)
    return max(int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in pairs)


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_equals_the_plain_pipeline(family: str) -> None:
    """The reference side is diffusers alone, one picture a call, with a generator as its users write it."""
    pipeline = tiny_pipeline(family)
    expected = [
        pipeline(
            prompt=prompt,
            negative_prompt="blurry",
            num_inference_steps=4,
            guidance_scale=6.0,
            height=64,
            width=64,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
        for prompt, seed in zip(PROMPTS[:3], SEEDS[:3], strict=True)
    ]
    settings: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 6.0, "negative_prompt": "blurry"}
    ours = list(generate_images(model(family), PROMPTS[:3], SEEDS[:3], **settings))
    assert difference(ours, expected) <= 1
    assert all(picture.mode == "RGB" and picture.size == (64, 64) for picture in ours)


@pytest.mark.parametrize(
    ("family", "scheduler"),
    [("sd15", name) for name in SCHEDULERS] + [("sd2", "ddim"), ("sdxl", "euler"), ("sdxl", "euler_ancestral")],
)
def test_independent_of_batch_size_order_and_company(family: str, scheduler: str) -> None:
    drawn = model(family)
    settings: dict[str, Any] = {"num_inference_steps": 3, "scheduler": scheduler}
    together = list(generate_images(drawn, PROMPTS, SEEDS, batch_size=4, **settings))
    alone = list(generate_images(drawn, PROMPTS[::-1], SEEDS[::-1], batch_size=1, **settings))[::-1]
    subset = list(generate_images(drawn, PROMPTS[1:4:2], SEEDS[1:4:2], batch_size=2, **settings))
    assert difference(together, alone) <= 1
    assert difference(together[1:4:2], subset) <= 1
    assert difference(together[:1], together[1:2]) > 20


def test_seed_prompt_guidance_and_negative_prompt_all_matter() -> None:
    drawn = model("sd15")

    def one(prompt: str = "a", seed: int = 1, **more: Any) -> list[Image.Image]:
        return list(generate_images(drawn, [prompt], [seed], num_inference_steps=4, **more))

    plain = one()
    assert difference(plain, one()) == 0
    for other in (one(seed=2), one(prompt="b"), one(guidance_scale=3.0), one(negative_prompt="c")):
        assert difference(plain, other) > 1
    # Without guidance the unconditional side, and with it the negative prompt, plays no part.
    assert difference(one(guidance_scale=1.0), one(guidance_scale=0.0, negative_prompt="c")) == 0


def test_prediction_type_reaches_the_new_scheduler() -> None:
    """The same weights read as epsilon and as v-prediction draw different pictures, whatever the scheduler."""
    for scheduler in ("ddim", "euler", "dpmpp_2m"):
        as_epsilon = model("sd15", prediction_type="epsilon")
        as_velocity = model("sd15", prediction_type="v_prediction")
        pictures = [
            list(generate_images(m, ["a"], [1], num_inference_steps=4, scheduler=scheduler))
            for m in (as_epsilon, as_velocity)
        ]
        assert difference(*pictures) > 10


def test_ddim_from_another_class_does_not_clip_latents() -> None:
    """DDPMScheduler's own default clips its prediction to [-1, 1], which latents must be spared."""
    from t2ialign.generation.schedulers import make_scheduler

    own = tiny_scheduler(name="DDPMScheduler")
    assert own.config.clip_sample
    made = make_scheduler("ddim", own, "sd15")
    assert type(made).__name__ == "DDIMScheduler"
    assert not made.config.clip_sample
    assert not made.config.set_alpha_to_one
    assert made.config.beta_schedule == "scaled_linear"


def test_auto_is_ddim_for_mini_sd_and_the_pipelines_own_otherwise() -> None:
    from t2ialign.generation.schedulers import make_scheduler

    own = tiny_scheduler(name="PNDMScheduler")
    assert type(make_scheduler("auto", own, "mini-sd")).__name__ == "DDIMScheduler"
    copy = make_scheduler("auto", own, "sd15")
    assert type(copy) is type(own)
    assert copy is not own
    with pytest.raises(ConfigError, match="unknown scheduler 'dimm'"):
        make_scheduler("dimm", own, "sd15")


def test_leaves_the_model_and_the_global_random_state_alone() -> None:
    drawn = model("sd15")
    pipeline = drawn.pipeline
    own = pipeline.scheduler
    pipeline.unet.train()
    pipeline.set_progress_bar_config(disable=False, desc="mine")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(generate_images(drawn, ["a"], [1], num_inference_steps=2, scheduler="euler_ancestral"))
    assert torch.equal(torch.rand(3), expected)
    assert pipeline.scheduler is own
    assert pipeline.unet.training
    assert pipeline.unet.conv_in.training
    assert not pipeline.vae.training
    assert pipeline._progress_bar_config == {"disable": False, "desc": "mine"}


def test_tf32_is_off_while_sampling_and_back_afterwards() -> None:
    drawn = model("sd15")
    seen = []
    drawn.unet.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    torch.backends.cudnn.allow_tf32 = True
    list(generate_images(drawn, ["a"], [1], num_inference_steps=2))
    assert seen == [False, False]
    assert torch.backends.cudnn.allow_tf32


def test_restores_the_model_when_it_fails() -> None:
    drawn = model("sd15")
    own, forward = drawn.pipeline.scheduler, drawn.unet.forward

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of memory")

    drawn.unet.forward = broken
    drawn.unet.train()
    with pytest.raises(RuntimeError, match="out of memory"):
        list(generate_images(drawn, ["a"], [1], num_inference_steps=2))
    drawn.unet.forward = forward
    assert drawn.pipeline.scheduler is own
    assert drawn.unet.training


def test_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    drawn = model("sd15")
    drawn.pipeline.set_progress_bar_config(disable=False)
    list(generate_images(drawn, ["word " * 200], [1], num_inference_steps=2))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_sizes() -> None:
    drawn = model("sd15")
    picture = next(generate_images(drawn, ["a"], [1], num_inference_steps=2, height=32, width=96))
    assert picture.size == (96, 32)
    with pytest.raises(ConfigError, match="height is 30"):
        generate_images(drawn, ["a"], [1], height=30)


def test_checks_come_before_any_work() -> None:
    drawn = model("sd15")
    with pytest.raises(ValueError, match="2 prompts but 1 seeds"):
        generate_images(drawn, ["a", "b"], [1])
    with pytest.raises(ConfigError, match="batch_size is 0"):
        generate_images(drawn, ["a"], [1], batch_size=0)
    assert list(generate_images(drawn, [], [])) == []


def test_half_precision_vae_that_must_not_overflow_is_decoded_in_float32() -> None:
    from t2ialign.generation.sampler import decode

    pipeline = tiny_pipeline("sdxl")
    latents = torch.randn(1, 4, 8, 8)
    expected = decode(pipeline, latents)
    pipeline.vae.to(torch.bfloat16)
    decoded = decode(pipeline, latents)
    assert pipeline.vae.dtype == torch.bfloat16
    assert difference([expected], [decoded]) <= 6


def test_mixed_number_formats_of_training_can_sample() -> None:
    """LoRA in float32 on bfloat16 weights, as training in mixed precision keeps them."""
    from t2ialign.models.lora import add_lora

    drawn = model("sd15")
    drawn.pipeline.unet.to(torch.bfloat16)
    drawn.pipeline.text_encoder.to(torch.bfloat16)
    add_lora(drawn.unet, rank=2)
    picture = next(generate_images(drawn, ["a"], [1], num_inference_steps=2))
    assert np.asarray(picture).std() > 1
