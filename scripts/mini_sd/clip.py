"""Stage 4: a small CLIP of the mini-world, the scorer that comes with mini-SD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTextModel, CLIPTokenizer

from mini_sd.fit import Schedule, fit
from mini_sd.pictures import caption, draw, to_tensor
from mini_sd.text import LENGTH, QUESTIONS, answers, tokenize

BATCH = 128
ANSWER_WEIGHT = 0.1
MEAN = STD = (0.5, 0.5, 0.5)


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Make an untrained CLIP: 64 px, patches of 8, 4 layers of 128 on either side."""
    tower = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
    words = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPModel(
        CLIPConfig(
            text_config={**tower, **words, "hidden_act": "gelu"},
            vision_config={**tower, "image_size": 64, "patch_size": 8, "hidden_act": "gelu"},
            projection_dim=128,
        )
    )


def new_processor() -> CLIPImageProcessorPil:
    """Make the picture processor that belongs to it."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=MEAN, image_std=STD
    )


class _WithAnswers(nn.Module):
    """CLIP with heads that must answer every question of the world from the picture's features."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.answers = nn.ModuleList(nn.Linear(128, 1 + len(v)) for v in QUESTIONS.values())


def _weathered(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur some pictures a little and add some noise, as an autoencoder's round trip does."""
    soft = nn.functional.avg_pool2d(nn.functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    mix = torch.from_numpy(rng.uniform(0, 0.7, len(pictures)) * rng.integers(2, size=len(pictures))).float()
    noise = torch.from_numpy(rng.uniform(0, 0.12, len(pictures))).float().view(-1, 1, 1, 1)
    return torch.lerp(pictures, soft, mix.view(-1, 1, 1, 1)) + noise * torch.randn_like(pictures)


def train_clip(
    work: Path, seed: int, schedule: Schedule, tokenizer: CLIPTokenizer, encoder: CLIPTextModel
) -> dict[str, Tensor]:
    """Train CLIP from the text encoder's weights; returns its averaged weights by name."""
    torch.manual_seed(seed)
    model = _WithAnswers(new_clip(tokenizer))
    weights = {n.removeprefix("text_model."): p for n, p in encoder.state_dict().items()}
    model.clip.text_model.load_state_dict(weights)

    def loss_of(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        specs, pictures = draw(rng, BATCH)
        texts, wanted = [], []
        for spec in specs:
            texts.append(caption(spec, rng)[0])
            wanted.append(answers(spec))
        with torch.autocast("cpu", torch.bfloat16):
            seen = model.clip.vision_model(_weathered(to_tensor(pictures), rng)).pooler_output
            read = model.clip.text_model(tokenize(tokenizer, texts)).pooler_output
        heads = [head(seen.float()) for head in model.answers]
        truth = torch.tensor(wanted)
        told = torch.stack([nn.functional.cross_entropy(h, truth[:, i]) for i, h in enumerate(heads)]).sum()
        v = nn.functional.normalize(model.clip.visual_projection(seen.float()), dim=-1)
        t = nn.functional.normalize(model.clip.text_projection(read.float()), dim=-1)
        logits = model.clip.logit_scale.clamp(max=4.6052).exp() * t @ v.T
        # Two captions that are the same words are no negatives of each other's pictures.
        names = np.asarray(texts)
        same = torch.from_numpy((names[:, None] == names[None]) & ~np.eye(BATCH, dtype=bool))
        logits = logits.masked_fill(same, -1e4)
        target = torch.arange(BATCH)
        contrast = 0.5 * (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target))
        figures = {
            "contrast": float(contrast.detach()),
            "answers": float(told.detach()),
            "top1": float((logits.argmax(0) == target).float().mean()),
        }
        return contrast + ANSWER_WEIGHT * told, figures

    averaged = fit("clip", model, loss_of, schedule, work, seed=seed, save_every=250)
    return {n.removeprefix("clip."): p for n, p in averaged.items() if n.startswith("clip.")}
