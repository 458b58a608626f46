"""References: equal to the model as it started, whatever the policy does afterwards."""

from __future__ import annotations

import pytest
import torch

from helpers.tiny import tiny_pipeline
from t2ialign.models import lora
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.reference import FrozenCopy, Reference, WithoutAdapter, make_reference


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
