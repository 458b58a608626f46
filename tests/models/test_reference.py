"""References: equal to the model as it started, whatever the policy does afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.tiny import FAMILIES, tiny_pipeline
from helpers.user_adapters import TOKENS, WIDTH, shake, users, with_adapter
from t2ialign.errors import ModelError
from t2ialign.models import lora
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.memory import save_memory
from t2ialign.models.reference import FrozenCopy, Reference, WithoutAdapter, WithoutUser, make_reference
from t2ialign.models.user_adapter import add_user_adapter, user_parameters


def predictions(model: DiffusionModel, reference: Reference) -> tuple[torch.Tensor, torch.Tensor]:
    latents = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    arguments = latents, torch.tensor([10, 900]), model.encode_prompts(["a", "b"])
    return model.predict(*arguments), reference.predict(*arguments)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_reference_stays_while_the_policy_moves(method: str) -> None:
    model = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    if method == "lora":
        lora.add_lora(model.unet, 4)
    else:
        model.unet.requires_grad_(True)
    reference = make_reference(model)
    assert isinstance(reference, WithoutAdapter if method == "lora" else FrozenCopy)
    model.unet.train()
    policy, start = predictions(model, reference)
    assert torch.equal(policy, start)
    assert policy.requires_grad
    assert not start.requires_grad
    optimizer = torch.optim.SGD([part for part in model.unet.parameters() if part.requires_grad], lr=1.0)
    policy.square().mean().backward()
    optimizer.step()
    policy, after = predictions(model, reference)
    assert torch.equal(after, start)
    assert not torch.equal(policy, after)
    assert model.unet.training


def test_frozen_copy_shares_no_memory_and_can_be_half() -> None:
    model = DiffusionModel.from_pipeline(tiny_pipeline("sdxl"))
    reference = FrozenCopy(model, torch.bfloat16)
    assert model.dtype == torch.float32
    own = {part.data_ptr() for part in model.unet.parameters()}
    assert not any(part.data_ptr() in own for part in reference.unet.parameters())
    policy, copied = predictions(model, reference)
    assert copied.dtype == torch.bfloat16
    assert torch.allclose(policy, copied.float(), atol=0.1)


def test_frozen_copy_of_a_lora_model_is_refused() -> None:
    model = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    lora.add_lora(model.unet, 4)
    with pytest.raises(ValueError, match="WithoutAdapter"):
        FrozenCopy(model)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_ignores_the_user(family: str, checkpointing: bool) -> None:
    model = with_adapter(family, shaken=False)
    model.unet.train()
    save_memory(model, gradient_checkpointing=checkpointing)
    reference = make_reference(model)
    assert isinstance(reference, WithoutUser)
    latents = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    arguments = latents, torch.tensor([10, 900])
    text = model.encode_prompts(["a", "b"])
    start = model.predict(*arguments, text)
    optimizer = torch.optim.SGD(user_parameters(model.unet).values(), lr=1.0)
    for step in range(3):
        given = text.with_user(users(2, step))
        policy, held = model.predict(*arguments, given), reference.predict(*arguments, given)
        assert torch.equal(held, start)
        assert not held.requires_grad
        assert torch.equal(policy, start) == (step == 0)
        assert model.unet.training
        assert all(module.training for module in model.unet.modules())
        optimizer.zero_grad()
        (policy - held + latents).square().mean().backward()
        optimizer.step()


def test_a_gradient_is_the_same_with_the_reference_between_forward_and_backward() -> None:
    """What gradient checkpointing computes again in backward has its user, whatever ran without one meanwhile."""
    found = []
    for between in (False, True):
        model = with_adapter()
        model.unet.train()
        save_memory(model, gradient_checkpointing=True)
        reference = make_reference(model)
        latents = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(1))
        given = latents, torch.tensor([10, 900]), model.encode_prompts(["a", "b"]).with_user(users(2))
        prediction = model.predict(*given)
        if between:
            reference.predict(*given)
        prediction.square().mean().backward()
        found.append([part.grad for part in user_parameters(model.unet).values()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_adapters_that_were_there_before_belong_to_the_reference(tmp_path: Path) -> None:
    tuned = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    for name, part in lora.add_lora(tuned.unet, 2).items():
        if "lora_B" in name:
            part.data = 0.1 * torch.randn(part.shape, generator=torch.Generator().manual_seed(len(name)))
    lora.save_lora(tuned, tmp_path)
    model = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    lora.load_adapter(model, tmp_path)
    add_user_adapter(model, WIDTH, TOKENS)
    policy, held = predictions(model, make_reference(model))
    assert torch.equal(policy, held)
    base = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    assert not torch.allclose(held, predictions(base, FrozenCopy(base))[1], atol=1e-2)


def test_a_lora_and_a_user_adapter_in_training_have_no_reference() -> None:
    model = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    lora.add_lora(model.unet, 2)
    with pytest.raises(ModelError, match="one at a time"):
        add_user_adapter(model, WIDTH, TOKENS)
    other = with_adapter()
    other.unet.peft_config = model.unet.peft_config
    with pytest.raises(ValueError, match="one at a time"):
        make_reference(other)
    with pytest.raises(ValueError, match="WithoutUser"):
        FrozenCopy(with_adapter())


def test_a_loaded_user_adapter_is_part_of_the_model() -> None:
    """Frozen, it is no longer in training: a LoRA may be trained beside it, and the reference is without that."""
    model = with_adapter()
    model.unet.requires_grad_(False)
    lora.add_lora(model.unet, 2)
    reference = make_reference(model)
    assert isinstance(reference, WithoutAdapter)
    policy, held = predictions(model, reference)
    assert torch.equal(policy, held)
    shake(model)
    assert torch.equal(predictions(model, reference)[1], held)
