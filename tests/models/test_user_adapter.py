"""The user adapter: no bit of the base changed without a user, and the paper's attention with one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from helpers.tiny import FAMILIES, tiny_pipeline
from helpers.user_adapters import EXTRACTOR, TOKENS, WIDTH, shake, users, with_adapter
from t2ialign.errors import ModelError
from t2ialign.models import lora
from t2ialign.models import user_adapter as adapters
from t2ialign.models.attention import set_attention
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.memory import save_memory

TIMES = torch.tensor([10, 900])


def noisy(seed: int = 1) -> Tensor:
    return torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(seed))


def predict(model: DiffusionModel, user: Tensor | None, unet: Any = None) -> Tensor:
    return model.predict(noisy(), TIMES, model.encode_prompts(["a", "b"]).with_user(user), unet=unet)


def gradients(model: DiffusionModel, user: Tensor | None) -> dict[str, Tensor]:
    """Of every weight of the UNet that has one."""
    model.unet.zero_grad()
    predict(model, user).square().mean().backward()
    return {name: part.grad for name, part in model.unet.named_parameters() if part.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("family", FAMILIES)
def test_bit_equal_at_first_and_for_nobody_always(family: str, prediction_type: str, checkpointing: bool) -> None:
    model = DiffusionModel.from_pipeline(tiny_pipeline(family, prediction_type))
    base = predict(model, None)
    model.unet.requires_grad_(True)
    own = adapters.add_user_adapter(model, WIDTH, TOKENS)
    assert {name for name, part in model.unet.named_parameters() if part.requires_grad} == own.keys()
    model.unet.train()
    save_memory(model, gradient_checkpointing=checkpointing)
    for user in (None, users(2), 1000 * users(2, 1), torch.zeros(2, TOKENS, WIDTH)):
        assert torch.equal(predict(model, user), base)
    predict(model, users(2)).sum().backward()  # what gradient checkpointing computes again has its user too
    shake(model)
    assert torch.equal(predict(model, None), base)
    assert torch.equal(predict(model, torch.zeros(2, TOKENS, WIDTH)), base)
    moved = predict(model, users(2))
    assert ((moved - base).abs().flatten(1).amax(dim=1) > 0.05).all()
    half = predict(model, torch.cat([users(2)[:1], torch.zeros(1, TOKENS, WIDTH)]))
    assert torch.equal(half[1], base[1])
    assert torch.allclose(half[0], moved[0], atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_reaches_exactly_the_adapter(family: str) -> None:
    model = with_adapter(family)
    model.unet.train()
    own = adapters.user_parameters(model.unet)
    text_layers = sum(name.endswith("attn2.to_k.weight") for name, _ in model.unet.named_parameters())
    assert len(own) == 1 + 2 * text_layers
    assert {name for name, part in model.unet.named_parameters() if part.requires_grad} == own.keys()
    plain = gradients(model, users(2))
    assert plain.keys() == own.keys()
    assert all(plain[name].abs().max() > 0 for name in own)
    save_memory(model, gradient_checkpointing=True)
    again = gradients(model, users(2))
    for name in own:
        assert torch.allclose(again[name], plain[name], rtol=1e-4, atol=1e-8)
    zero = gradients(model, torch.zeros(2, TOKENS, WIDTH))
    assert all(zero[name].abs().max() == 0 for name in own)


def test_only_the_values_have_a_gradient_at_first() -> None:
    """W_v' is zero, so that nothing else matters yet; one step moves it, and then all of them."""
    model = with_adapter(shaken=False)
    own = adapters.user_parameters(model.unet)
    first = gradients(model, users(2))
    for name in own:
        assert (first[name].abs().max() > 0) == name.endswith("user_v.weight")
    torch.optim.SGD(own.values(), lr=0.1).step()
    second = gradients(model, users(2))
    assert all(second[name].abs().max() > 0 for name in own)


def twin_of_an_attention(weights: dict[str, Tensor], x: Tensor, text: Tensor, user: Tensor, heads: int) -> Tensor:
    """Equation 6 of the paper in plain torch: (softmax(Q K^T / sqrt d) V + softmax(Q K'^T / sqrt d) V') W_out + b."""

    def attend(keys: Tensor, values: Tensor) -> Tensor:
        q = x @ weights["to_q"].T
        width = q.shape[-1] // heads
        result = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            scores = q[..., part] @ keys[..., part].transpose(-1, -2) / width**0.5
            result.append(scores.softmax(-1) @ values[..., part])
        return torch.cat(result, dim=-1)

    projected = user @ weights["p"].T
    to_text = attend(text @ weights["to_k"].T, text @ weights["to_v"].T)
    to_user = attend(projected @ weights["user_k"].T, projected @ weights["user_v"].T)
    return (to_text + to_user) @ weights["out"].T + weights["bias"]


def test_one_attention_equals_the_paper_s_equation() -> None:
    model = with_adapter("sd2")
    model.unet.double()
    name, attn = next((n, m) for n, m in model.unet.named_modules() if n.endswith("attn2"))
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, text, user = random(2, 16, attn.query_dim), random(2, 7, attn.cross_attention_dim), random(2, TOKENS, WIDTH)
    target = random(2, 16, attn.query_dim)
    projection = model.unet.user_projection
    ours = attn(x, encoder_hidden_states=text, ip_hidden_states=[projection(user)])
    parts = {
        "p": projection.weight,
        "user_k": attn.processor.user_k.weight,
        "user_v": attn.processor.user_v.weight,
        "to_q": attn.to_q.weight,
        "to_k": attn.to_k.weight,
        "to_v": attn.to_v.weight,
        "out": attn.to_out[0].weight,
        "bias": attn.to_out[0].bias,
    }
    weights = {key: part.detach().clone().requires_grad_(part.requires_grad) for key, part in parts.items()}
    twin = twin_of_an_attention(weights, x, text, user, attn.heads)
    assert torch.allclose(ours, twin, rtol=0, atol=1e-12)
    assert (ours - attn(x, encoder_hidden_states=text)).abs().max() > 0.1, name
    functional.mse_loss(ours, target).backward()
    functional.mse_loss(twin, target).backward()
    for key in ("p", "user_k", "user_v"):
        assert torch.allclose(parts[key].grad, weights[key].grad, rtol=1e-10, atol=1e-14), key
    assert parts["to_q"].grad is weights["to_q"].grad is None


@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_unet_equals_diffusers_ip_adapter(family: str) -> None:
    """The other side is a plain UNet with diffusers' own decoupled attention, which adds before the projection."""
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

    model = with_adapter(family)
    plain = tiny_pipeline(family).unet
    weights = {name: part.detach() for name, part in adapters.user_parameters(model.unet).items()}
    for name, attn in plain.named_modules():
        if name.endswith("attn2"):
            processor = IPAdapterAttnProcessor2_0(attn.inner_dim, attn.cross_attention_dim, num_tokens=(TOKENS,))
            processor.to_k_ip[0].weight = torch.nn.Parameter(weights[f"{name}.processor.user_k.weight"])
            processor.to_v_ip[0].weight = torch.nn.Parameter(weights[f"{name}.processor.user_v.weight"])
            attn.set_processor(processor)
    text = model.encode_prompts(["a", "b"])
    projected = users(2) @ weights["user_projection.weight"].T
    added = None if text.pooled is None else {"text_embeds": text.pooled, "time_ids": text.time_ids}
    expected = plain(noisy(), TIMES, encoder_hidden_states=(text.hidden, [projected]), added_cond_kwargs=added).sample
    ours = predict(model, users(2))
    assert torch.allclose(ours, expected, atol=2e-5)
    assert (ours - predict(model, None)).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_under_autocast(family: str) -> None:
    model = DiffusionModel.from_pipeline(tiny_pipeline(family))
    model.to(dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        base = predict(model, None)
    own = adapters.add_user_adapter(model, WIDTH, TOKENS)
    assert {part.dtype for part in own.values()} == {torch.float32}
    assert model.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(predict(model, users(2)), base)
    shake(model)  # outside, for autocast keeps the bfloat16 copies of weights until its block ends
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(predict(model, torch.zeros(2, TOKENS, WIDTH)), base)
        moved = predict(model, users(2))
        moved.float().square().mean().backward()
    reached = [part.grad for part in own.values() if part.grad is not None]
    assert len(reached) == len(own)
    assert all(gradient.dtype == torch.float32 and gradient.abs().max() > 0 for gradient in reached)
    whole = with_adapter(family)
    exact = predict(whole, users(2)) - predict(whole, None)
    assert functional.cosine_similarity((moved - base).float().flatten(), exact.flatten(), dim=0) > 0.98
    without_autocast = predict(model, users(2))  # float32 weights beside bfloat16 ones need no autocast
    assert torch.equal(predict(model, torch.zeros(2, TOKENS, WIDTH)), predict(model, None))
    assert (without_autocast.float() - moved.float()).abs().max() < 0.1


def test_float16_holds_large_embeddings() -> None:
    """A language model's states exceed what float16 holds; users stay float32 until they are projected."""
    model = with_adapter()
    big = users(2) * 1e5
    with torch.no_grad():
        model.unet.user_projection.weight.mul_(1e-5)
    expected = predict(model, big)
    model.to(dtype=torch.bfloat16)
    assert torch.isfinite(predict(model, big)).all()
    conditioning = model.encode_prompts(["a", "b"]).with_user(big).to(dtype=torch.float16)
    assert conditioning.user is not None
    assert torch.equal(conditioning.user, big)
    assert (predict(model, big).float() - expected).abs().max() < 0.2


def test_start_is_a_function_of_the_seed() -> None:
    def start(seed: int) -> dict[str, torch.nn.Parameter]:
        model = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
        return adapters.add_user_adapter(model, 400, TOKENS, seed=seed)

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = start(1)
    assert torch.equal(torch.rand(3), expected)
    second, other = start(1), start(2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["user_projection.weight"], other["user_projection.weight"])
    projection = first["user_projection.weight"]
    assert projection.shape == (32, 400)
    assert float(projection.std() * 400**0.5) == pytest.approx(1, abs=0.02)  # N(0, 1 / D) of 12,800 draws
    plain = dict(tiny_pipeline("sd15").unet.named_parameters())
    for name, part in first.items():
        if name.endswith("user_k.weight"):
            assert torch.equal(part, plain[name.replace("processor.user_k", "to_k")])
        if name.endswith("user_v.weight"):
            assert part.abs().max() == 0


def test_users_need_an_adapter_of_their_shape() -> None:
    plain = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    with pytest.raises(ModelError, match="without a user adapter"):
        predict(plain, users(2))
    model = with_adapter()
    for wrong in (users(2)[:, :2], users(2)[..., :4]):
        with pytest.raises(ModelError, match=rf"\[B, {TOKENS}, {WIDTH}\].*{EXTRACTOR}"):
            predict(model, wrong)
    with pytest.raises(ModelError, match="without a user adapter"):
        predict(model, users(2), unet=plain.unet)


def test_a_lora_and_a_user_adapter_are_not_trained_together() -> None:
    model = with_adapter()
    with pytest.raises(ModelError, match="one at a time"):
        lora.add_lora(model.unet, 2)
    assert adapters.in_training(model.unet)
    tuned = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    lora.add_lora(tuned.unet, 2)
    with pytest.raises(ModelError, match="one at a time"):
        adapters.add_user_adapter(tuned, WIDTH, TOKENS)
    with pytest.raises(ModelError, match="no user adapter to save"):
        adapters.save_user_adapter(tuned, "nowhere")
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(("width", "tokens"), [(0, 3), (6, 0)])
def test_sizes_are_positive(width: int, tokens: int) -> None:
    with pytest.raises(ValueError, match="width >= 1 and tokens >= 1"):
        adapters.add_user_adapter(DiffusionModel.from_pipeline(tiny_pipeline("sd15")), width, tokens)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("rescale_output_factor", 2.0, "a rescaled output"),
        ("residual_connection", True, "a residual connection"),
        ("norm_q", torch.nn.LayerNorm(4), "norms on queries or keys"),
        ("group_norm", torch.nn.GroupNorm(1, 32), "a norm on its input"),
    ],
)
def test_other_attention_is_refused_by_name(attribute: str, value: Any, message: str) -> None:
    model = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    attn = next(module for name, module in model.unet.named_modules() if name.endswith("attn2"))
    setattr(attn, attribute, value)
    with pytest.raises(ModelError, match=rf"attn2 of the UNet: it has {message}"):
        adapters.add_user_adapter(model, WIDTH, TOKENS)
    assert adapters.installed(model.unet) is None


def test_an_ip_adapter_is_refused() -> None:
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

    model = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    attn = next(module for name, module in model.unet.named_modules() if name.endswith("attn2"))
    attn.set_processor(IPAdapterAttnProcessor2_0(attn.inner_dim, attn.cross_attention_dim))
    with pytest.raises(ModelError, match="IPAdapterAttnProcessor2_0"):
        adapters.add_user_adapter(model, WIDTH, TOKENS)


def test_the_attention_beneath_can_be_chosen_and_the_adapter_taken_off() -> None:
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    model = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    model.unet.set_attn_processor(AttnProcessor())
    base = predict(model, None)
    adapters.add_user_adapter(model, WIDTH, TOKENS)
    assert torch.equal(predict(model, users(2)), base)
    shake(model)
    moved = predict(model, users(2))
    assert set_attention(model, "sdpa") == "sdpa"
    wrapped = [part for part in model.unet.attn_processors.values() if isinstance(part, adapters.UserAttention)]
    assert wrapped
    assert all(type(part.base) is AttnProcessor2_0 for part in wrapped)
    assert torch.allclose(predict(model, users(2)), moved, atol=1e-5)
    adapters.remove_user_adapter(model.unet)
    adapters.remove_user_adapter(model.unet)
    assert all(type(part) is AttnProcessor2_0 for part in model.unet.attn_processors.values())
    assert not model.unet._forward_pre_hooks
    assert torch.allclose(predict(model, None), base, atol=1e-5)
    adapters.add_user_adapter(model, WIDTH, TOKENS)


def test_a_stacked_lora_and_a_user_adapter_draw_together(tmp_path: Path) -> None:
    tuned = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    for name, part in lora.add_lora(tuned.unet, 2).items():
        if "lora_B" in name:
            part.data = 0.1 * torch.randn(part.shape, generator=torch.Generator().manual_seed(len(name)))
    lora.save_lora(tuned, tmp_path / "lora")
    adapters.save_user_adapter(with_adapter(), tmp_path / "users")
    one = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    lora.load_adapter(one, tmp_path / "lora")
    alone = predict(one, None)
    adapters.load_user_adapter(one, tmp_path / "users")
    assert torch.equal(predict(one, torch.zeros(2, TOKENS, WIDTH)), alone)
    both = predict(one, users(2))
    assert (both - alone).abs().max() > 0.1
    other = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    adapters.load_user_adapter(other, tmp_path / "users")
    lora.load_adapter(other, tmp_path / "lora")
    assert torch.allclose(predict(other, users(2)), both, atol=1e-5)
    lora.merge_adapters(other)
    assert torch.allclose(predict(other, users(2)), both, atol=1e-4)


def test_a_copy_of_the_unet_has_its_own_adapter() -> None:
    model = with_adapter()
    moved = predict(model, users(2))
    copied = copy.deepcopy(model.unet)
    adapters.remove_user_adapter(model.unet)
    assert torch.equal(predict(model, users(2), unet=copied), moved)
    adapters.remove_user_adapter(copied)
    assert torch.equal(predict(model, None, unet=copied), predict(model, None))


def test_distributed_training_sees_every_weight(tmp_path: Path) -> None:
    """DistributedDataParallel fails where a weight is used outside the forward that it wraps, or not at all."""
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    model = with_adapter()
    expected = gradients(model, users(2))
    model.unet.zero_grad()
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model.unet)
        for _ in range(2):
            model.unet.zero_grad()
            predict(model, users(2), unet=wrapped).square().mean().backward()
        assert adapters.in_training(wrapped)
    finally:
        distributed.destroy_process_group()
    for name, part in adapters.user_parameters(model.unet).items():
        assert part.grad is not None
        assert torch.equal(part.grad, expected[name]), name


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["sdpa", "xformers"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_bit_equal_on_a_gpu(family: str, dtype: torch.dtype, backend: str) -> None:
    if backend == "xformers":
        pytest.importorskip("xformers")
    model = DiffusionModel.from_pipeline(tiny_pipeline(family)).to("cuda", dtype)
    set_attention(model, backend)
    text = model.encode_prompts(["a", "b"])
    given = noisy().cuda(), TIMES.cuda()
    people = users(2).cuda()

    def on_gpu(user: Tensor | None) -> Tensor:
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            return model.predict(*given, text.with_user(user))

    base = on_gpu(None)
    own = adapters.add_user_adapter(model, WIDTH, TOKENS)
    assert torch.equal(on_gpu(people), base)
    shake(model)
    assert torch.equal(on_gpu(torch.zeros_like(people)), base)
    moved = on_gpu(people)
    assert (moved - base).abs().max() > 0.05
    moved.float().square().mean().backward()
    assert all(part.grad is not None and torch.isfinite(part.grad).all() for part in own.values())
