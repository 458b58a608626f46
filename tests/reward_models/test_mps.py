"""MPS against a plain computation of the official formula, and its independence of what is scored beside."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.clip import IMAGE_SIZE, save_mps
from helpers.zoo import KINDS, colours, save_zoo, transformers_pixels
from t2ialign.errors import ConfigError, ModelError
from t2ialign.reward_models.mps import MPS, OVERALL

PROMPTS = ["a red circle", "Zwölf Boxkämpfer", "", "word " * 60, *("a blue star", "something green") * 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mps(tmp_path_factory.mktemp("mps"), seed=1)


class Plain:
    """The official formula with explicit sums: text and picture tokens of a `CLIPModel`, then the cross-attention."""

    def __init__(self, folder: Path, threshold: float) -> None:
        from safetensors.torch import load_file
        from transformers import AutoTokenizer, CLIPConfig, CLIPModel

        state = load_file(folder / "mps.safetensors")
        self.cross: dict[str, torch.Tensor] = {
            k.removeprefix("cross_model."): v for k, v in state.items() if k.startswith("cross_model.")
        }
        self.model = CLIPModel(CLIPConfig.from_pretrained(folder)).eval()
        trunk = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        self.model.load_state_dict({k: v for k, v in trunk.items() if "position_ids" not in k})
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.threshold = threshold

    def text(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        ids = self.tokenizer(prompts, max_length=77, padding="max_length", truncation=True, return_tensors="pt")
        states = self.model.text_model(input_ids=ids["input_ids"])
        return self.model.text_projection(states[0]), self.model.text_projection(states[1])

    @torch.no_grad()
    def score(self, prompts: list[str], files: list[Any], condition: str = OVERALL) -> torch.Tensor:
        pixels = torch.stack([transformers_pixels(file, IMAGE_SIZE) for file in files])
        tokens = self.model.visual_projection(self.model.vision_model(pixel_values=pixels)[0])
        words, ends = self.text(prompts)
        asked, _ = self.text([condition] * len(prompts))
        near = torch.einsum("bid,bjd->bji", words, asked).amax(dim=1)
        mask = torch.where(near / near.max() > self.threshold, 0.0, -math.inf)
        for layer in range(2):
            tokens = tokens + self.words(layer, tokens, words, mask)
            tokens = tokens + self.around(layer, tokens)
        seen = tokens[:, 0] / tokens[:, 0].norm(dim=-1, keepdim=True)
        ends = ends / ends.norm(dim=-1, keepdim=True)
        scores: torch.Tensor = self.model.logit_scale.exp() * (seen * ends).sum(dim=-1)
        return scores

    def part(self, layer: int, step: int, name: str) -> torch.Tensor:
        return self.cross[f"layers.{layer}.{step}.fn.{name}"]

    def norm(self, layer: int, step: int, x: torch.Tensor) -> torch.Tensor:
        x = (x - x.mean(dim=-1, keepdim=True)) / (x.var(dim=-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * self.part(layer, step, "norm.weight") + self.part(layer, step, "norm.bias")

    def words(self, layer: int, x: torch.Tensor, words: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.norm(layer, 0, x)
        kv = words @ self.part(layer, 0, "to_kv.weight").T
        out = self.attend(x @ self.part(layer, 0, "to_q.weight").T, kv[..., :8], kv[..., 8:], mask)
        return out @ self.part(layer, 0, "to_out.weight").T + self.forward(
            x @ self.part(layer, 0, "ff.0.weight").T, self.part(layer, 0, "ff.2.weight")
        )

    def around(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        fused = self.norm(layer, 1, x) @ self.part(layer, 1, "fused_attn_ff_proj.weight").T
        queries = torch.cat([self.turn(head) for head in fused[..., :16].split(8, dim=-1)], dim=-1)
        out = self.attend(queries, self.turn(fused[..., 16:24]), fused[..., 24:32], torch.zeros(1))
        return out @ self.part(layer, 1, "attn_out.weight").T + self.forward(
            fused[..., 32:], self.part(layer, 1, "ff_out.1.weight")
        )

    @staticmethod
    def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        heads = []
        for head in queries.split(8, dim=-1):
            weights = torch.einsum("bid,bjd->bij", head * 8**-0.5, keys) + (mask[:, None] if mask.ndim == 2 else mask)
            heads.append(weights.softmax(dim=-1) @ values)
        return torch.cat(heads, dim=-1)

    @staticmethod
    def forward(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        content, gate = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        return (gate * torch.sigmoid(gate) * content) @ weight.T

    @staticmethod
    def turn(x: torch.Tensor) -> torch.Tensor:
        """Rotates number i with number i + 4 by position / 10000^(i/4)."""
        angles = torch.arange(x.shape[1])[:, None] / 10000 ** (torch.arange(4) / 4)
        one, two = x[..., :4], x[..., 4:]
        return torch.cat([one * angles.cos() - two * angles.sin(), two * angles.cos() + one * angles.sin()], dim=-1)


@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.9])
def test_equals_the_official_formula_one_pair_at_a_time(folder: Path, tmp_path: Path, threshold: float) -> None:
    zoo = save_zoo(tmp_path)
    files = [zoo[kind] for kind in KINDS]
    plain = Plain(folder, threshold)
    expected = torch.cat([plain.score([p], [f]) for p, f in zip(PROMPTS, files, strict=True)])
    scorer = MPS(str(folder), threshold=threshold, device="cpu", batch_size=5)
    assert float(expected.std()) > 0.5
    assert torch.allclose(scorer.score(PROMPTS, files), expected, atol=1e-5 * scorer.backend.logit_scale, rtol=0)


def test_the_mask_matters_and_the_official_one_depends_on_the_batch(folder: Path) -> None:
    pictures = [colours(i, (40, 40)) for i in range(len(PROMPTS))]
    plain, ours = Plain(folder, 0.9), MPS(str(folder), threshold=0.9, device="cpu")
    alone = torch.cat([plain.score([p], [f]) for p, f in zip(PROMPTS, pictures, strict=True)])
    together = plain.score(PROMPTS, pictures)  # may even be no number, where no word of a prompt is near enough
    assert not torch.allclose(alone, together, atol=1e-3, rtol=0), "the twin must show what is being avoided"
    assert torch.allclose(ours.score(PROMPTS, pictures), alone, atol=1e-4, rtol=0)
    wide = MPS(str(folder)).score(PROMPTS, pictures)
    assert float((ours.score(PROMPTS, pictures) - wide).abs().max()) > 5e-3
    other = MPS(str(folder), threshold=0.9, condition="x")
    expected = Plain(folder, 0.9).score(["a red circle"], [pictures[0]], condition="x")
    assert torch.allclose(other.score(["a red circle"], [pictures[0]]), expected, atol=1e-4, rtol=0)
    assert len({scorer.version for scorer in (ours, other, MPS(str(folder)))}) == 3


def test_half_precision_keeps_its_angles(folder: Path) -> None:
    from t2ialign.reward_models.mps import _turned

    angles, x = torch.full((1, 8), 250.3), torch.ones(1, 1, 8)
    assert torch.allclose(_turned(x.bfloat16(), angles).float(), _turned(x, angles), atol=0.02)
    scorer = MPS(str(folder), dtype="bfloat16", device="cpu")
    assert {value.dtype for name, value in scorer.cross.items() if "inv_freq" not in name} == {torch.bfloat16}
    picture = colours(0, (40, 40))
    exact = MPS(str(folder), device="cpu").score(["a star"], [picture])
    assert float((scorer.score(["a star"], [picture]) - exact).abs()) < 0.1 * scorer.backend.logit_scale


def test_what_is_wrong_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"convert it once as reward_models/mps.md says"):
        MPS()
    (tmp_path / "MPS_overall_checkpoint.pth").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"MPS_overall_checkpoint.pth is no safetensors file; .*mps.md"):
        MPS(str(tmp_path / "MPS_overall_checkpoint.pth"))
    with pytest.raises(ConfigError, match=r"threshold is 1.0"):
        MPS(str(folder), threshold=1.0)
    from safetensors.torch import save_file

    save_file({"model.x": torch.ones(1)}, tmp_path / "mps.safetensors")
    with pytest.raises(ModelError, match=r"is no MPS: it needs weights named model"):
        MPS(str(tmp_path))
