"""Drawing for users: the guidance formula, nobody is the base model, and the model is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from helpers.tiny import FAMILIES, tiny_pipeline
from helpers.user_adapters import EXTRACTOR, TOKENS, WIDTH, user_file, users, with_adapter
from t2ialign.errors import ConfigError, DataError, ModelError
from t2ialign.generation.sampler import generate_images
from t2ialign.generation.users import check_user, default_user_guidance, read_user, user_guidance
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.user_adapter import add_user_adapter, remove_user_adapter

PROMPTS = ["a red circle", "a blue star on black", "", "a very long prompt " * 20, "green"]
SEEDS = [11, 12, 13, 2**62 + 5, 15]
STEPS = 3


def draw(model: DiffusionModel, people: Sequence[Tensor | None] | None, **more: Any) -> list[Image.Image]:
    return list(generate_images(model, PROMPTS, SEEDS, num_inference_steps=STEPS, users=people, **more))


def difference(first: list[Image.Image], second: list[Image.Image]) -> int:
    pairs = zip(first, second, strict=True)
    return max(int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in pairs)


def noise() -> Tensor:
    return torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(1))


def by_the_pipeline(model: DiffusionModel, people: Sequence[Tensor | None], s: float, s_u: float | None) -> Tensor:
    with torch.no_grad(), user_guidance(model, people, s, s_u):
        latents: Tensor = model.pipeline(
            prompt=PROMPTS[:2],
            negative_prompt=["blurry"] * 2,
            latents=noise(),
            guidance_scale=s,
            num_inference_steps=STEPS,
            height=64,
            width=64,
            output_type="latent",
        ).images
    return latents


def by_explicit_passes(model: DiffusionModel, people: Sequence[Tensor | None], s: float, s_u: float) -> Tensor:
    """A sampling loop of its own: one UNet pass a term, the formula written out, a scheduler of diffusers."""
    prompt, empty = model.encode_prompts(PROMPTS[:2]), model.encode_prompts(["blurry"] * 2)
    user = torch.stack([torch.zeros(TOKENS, WIDTH) if person is None else person for person in people])
    scheduler = copy.deepcopy(model.pipeline.scheduler)
    scheduler.set_timesteps(STEPS)

    def eps(text: Any, user: Tensor | None) -> Tensor:
        added = None if text.pooled is None else {"text_embeds": text.pooled, "time_ids": text.time_ids}
        extra = None if user is None else {"user_embeds": user}
        sample: Tensor = model.unet(x, t, text.hidden, added_cond_kwargs=added, cross_attention_kwargs=extra).sample
        return sample

    x = noise()
    with torch.no_grad():
        for t in scheduler.timesteps:
            towards_user = s_u * (eps(prompt, user) - eps(prompt, None))
            if s > 1:
                direction = eps(empty, None) + s * (eps(prompt, None) - eps(empty, None)) + towards_user
            else:
                direction = eps(prompt, None) + towards_user
            x = scheduler.step(direction, t, x).prev_sample
    return x


@pytest.mark.parametrize(("s", "s_u"), [(5.0, 2.0), (5.0, 9.0), (5.0, None), (2.0, 0.0), (1.0, 3.0), (1.0, None)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_formula(family: str, s: float, s_u: float | None) -> None:
    model = with_adapter(family)
    people = [users(1, 3)[0], None] if s_u == 9.0 else list(users(2))
    expected = by_explicit_passes(model, people, s, (s if s > 1 else 1.0) if s_u is None else s_u)
    ours = by_the_pipeline(model, people, s, s_u)
    assert torch.allclose(ours, expected, atol=1e-4), (ours - expected).abs().max()
    nobody = by_the_pipeline(model, [None, None], s, s_u)
    moved = (ours - nobody).abs().flatten(1).amax(dim=1)
    assert [float(row) > 0.01 for row in moved] == [s_u != 0, s_u != 0 and people[1] is not None]


@pytest.mark.parametrize("s", [1.0, 4.0])
def test_as_strong_as_the_text_is_two_passes(s: float) -> None:
    """The default takes as many rows as without a user; a scale next to it takes more and gives nearly the same."""
    model = with_adapter()
    people = list(users(2))
    rows = []
    handle = model.unet.conv_in.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    default = by_the_pipeline(model, people, s, None)
    same = by_the_pipeline(model, people, s, s if s > 1 else 1.0)
    nobody = by_the_pipeline(model, people, s, 0.0)
    near = by_the_pipeline(model, people, s, (s if s > 1 else 1.0) * (1 + 1e-6))
    handle.remove()
    passes = 2 if s > 1 else 1
    assert rows == [2 * passes] * (3 * STEPS) + [2 * (passes + 1)] * STEPS
    assert torch.equal(nobody, by_the_pipeline(model, [None, None], s, None))
    assert torch.equal(default, same)
    assert torch.allclose(default, near, atol=1e-4)
    assert default_user_guidance(model, s) == s


@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_is_the_base_model_to_the_last_pixel(family: str) -> None:
    model = with_adapter(family)
    settings: list[dict[str, Any]] = [
        {"people": None},
        {"people": [None] * 5},
        {"people": [None] * 5, "user_guidance_scale": 3.0},
        {"people": list(users(5)), "user_guidance_scale": 0.0},
    ]
    drawn = [draw(model, given.pop("people"), **given) for given in settings]
    zeros = draw(model, list(torch.zeros(5, TOKENS, WIDTH)))
    for_users = draw(model, list(users(5)))
    remove_user_adapter(model.unet)
    base = draw(model, None)
    assert [difference(pictures, base) for pictures in drawn] == [0] * 4
    assert difference(zeros, base) == 0
    assert min(difference([a], [b]) for a, b in zip(for_users, base, strict=True)) > 3


@pytest.mark.parametrize(
    "more", [{}, {"user_guidance_scale": 3.0}, {"guidance_scale": 1.0, "user_guidance_scale": 2.0}]
)
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_independent_of_batch_size_order_and_company(family: str, more: dict[str, Any]) -> None:
    model = with_adapter(family)
    people = [*users(2), None, users(1, 7)[0], None]
    settings = {"num_inference_steps": STEPS, "scheduler": "euler_ancestral", **more}
    together = list(generate_images(model, PROMPTS, SEEDS, users=people, batch_size=4, **settings))
    alone = list(generate_images(model, PROMPTS[::-1], SEEDS[::-1], users=people[::-1], batch_size=1, **settings))
    assert difference(together, alone[::-1]) <= 1
    nobody = list(generate_images(model, PROMPTS, SEEDS, **settings))
    moved = [difference([a], [b]) > 3 for a, b in zip(together, nobody, strict=True)]
    assert moved == [person is not None for person in people]


def test_scales_matter() -> None:
    model = with_adapter()
    people = list(users(5))
    plain = draw(model, people)
    for other in ({"user_guidance_scale": 1.0}, {"user_guidance_scale": 12.0}, {"guidance_scale": 3.0}):
        assert difference(plain, draw(model, people, **other)) > 3
    assert difference(plain, draw(model, people, user_guidance_scale=7.5)) == 0


def hooks(model: DiffusionModel) -> tuple[int, int]:
    return len(model.unet._forward_pre_hooks), len(model.unet._forward_hooks)


def test_leaves_the_model_as_it_was() -> None:
    model = with_adapter()
    before = hooks(model)
    model.unet.train()
    draw(model, list(users(5)), user_guidance_scale=2.0)
    assert hooks(model) == before
    assert model.unet.training
    forward = model.unet.forward

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of memory")

    model.unet.forward = broken
    with pytest.raises(RuntimeError, match="out of memory"):
        draw(model, list(users(5)), user_guidance_scale=2.0)
    model.unet.forward = forward
    assert hooks(model) == before
    iterator = generate_images(model, PROMPTS, SEEDS, users=list(users(5)), num_inference_steps=STEPS, batch_size=1)
    next(iterator)
    assert hooks(model) == before  # between pictures too


def test_in_training_with_weights_of_two_formats() -> None:
    """Sample pictures of a run in mixed precision: a float32 adapter in training beside bfloat16 weights."""
    model = DiffusionModel.from_pipeline(tiny_pipeline("sdxl"))
    model.pipeline.unet.to(torch.bfloat16)
    model.pipeline.text_encoder.to(torch.bfloat16)
    model.pipeline.text_encoder_2.to(torch.bfloat16)
    add_user_adapter(model, WIDTH, TOKENS)
    pictures = draw(model, list(users(5)), user_guidance_scale=2.0)
    assert np.asarray(pictures[0]).std() > 1
    assert difference(pictures, draw(model, None)) <= 1  # W_v' is still zero


def test_checks_come_before_any_work() -> None:
    model = with_adapter()
    with pytest.raises(ValueError, match="2 prompts but 1 users"):
        generate_images(model, ["a", "b"], [1, 2], users=[None])
    with pytest.raises(ConfigError, match="user_guidance_scale is -1"):
        generate_images(model, ["a"], [1], users=list(users(1)), user_guidance_scale=-1)
    with pytest.raises(ModelError, match=rf"takes \[{TOKENS}, {WIDTH}\].*{EXTRACTOR}"):
        generate_images(model, ["a"], [1], users=[torch.zeros(TOKENS + 1, WIDTH)])
    plain = DiffusionModel.from_pipeline(tiny_pipeline("sd15"), "plain")
    with pytest.raises(ModelError, match=r"plain has no user adapter.*--adapter"):
        generate_images(plain, ["a"], [1], users=list(users(1)))
    assert len(list(generate_images(plain, ["a"], [1], users=[None], num_inference_steps=1))) == 1


def test_reading_a_user(tmp_path: Path) -> None:
    a, b = user_file(tmp_path / "alice.safetensors", 1), user_file(tmp_path / "bob.safetensors", 2)
    alice, bob = read_user(str(a)), read_user(str(b))
    assert (alice.label, alice.extractor, alice.weights) == ("alice", EXTRACTOR, (("alice", 1.0),))
    mixed = read_user(f"{a}:0.3,{b}:-0.5")
    assert torch.allclose(mixed.tokens, 0.3 * alice.tokens - 0.5 * bob.tokens)
    assert mixed.weights == (("alice", 0.3), ("bob", -0.5))
    assert len({alice.sha256, bob.sha256, mixed.sha256}) == 3
    assert alice.sha256 == read_user(str(a)).sha256
    with pytest.raises(DataError, match=r"no user's file .*carol\.safetensors"):
        read_user(str(tmp_path / "carol.safetensors"))


def test_an_embedding_of_another_extractor_is_refused(tmp_path: Path) -> None:
    model = with_adapter(name="runs/ppd/final")
    other = read_user(str(user_file(tmp_path / "alice.safetensors", extractor="other:2")))
    with pytest.raises(ModelError, match=rf"alice was made by other:2.*runs/ppd/final.*{EXTRACTOR}"):
        check_user(model, other)
    check_user(model, read_user(str(user_file(tmp_path / "bob.safetensors"))))
    wide = read_user(str(user_file(tmp_path / "carol.safetensors", width=WIDTH + 1)))
    with pytest.raises(ModelError, match=rf"carol is \[{TOKENS}, {WIDTH + 1}\]"):
        check_user(model, wide)
    remove_user_adapter(model.unet)
    add_user_adapter(model, WIDTH, TOKENS)  # it does not say which extractor it takes
    check_user(model, other)
