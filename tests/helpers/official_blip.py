"""ImageReward's modules as its authors name them, in plain torch and tiny, with a checkpoint made from them.

Law: nothing of t2ialign and no model of transformers has a hand in it. The names are those of `BLIP/vit.py` (timm's
ViT), `BLIP/med.py` (BERT with cross-attention), `BLIP/blip_pretrain.py` and `ImageReward.py`.
"""

from __future__ import annotations

import math
import string
from pathlib import Path
from typing import Any

import torch
from torch import nn

IMAGE_SIZE, PATCH = 32, 8
VISION, TEXT, DEPTH = 128, 64, 2
WORDS = ("a", "red", "blue", "circle", "star", "painting", "of", "word", "the", ",", ".", "-", "!")
MEAN, STD = 0.16717362830052426, 1.0333394966054072


def vocabulary() -> list[str]:
    letters = string.ascii_lowercase + string.digits
    return [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *dict.fromkeys((*WORDS, *letters)),
        *(f"##{each}" for each in letters),
    ]


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Heads of 64 numbers, one after the other."""
    out = []
    for start in range(0, q.shape[-1], 64):
        part = slice(start, start + 64)
        scores = q[..., part] @ k[..., part].transpose(-1, -2) / math.sqrt(64)
        if mask is not None:
            scores = scores + (1.0 - mask[:, None, :].float()) * -10000.0
        out.append(scores.softmax(dim=-1) @ v[..., part])
    return torch.cat(out, dim=-1)


class Attn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(VISION, 3 * VISION), nn.Linear(VISION, VISION)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        out: torch.Tensor = self.proj(attend(q, k, v))
        return out


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(VISION, 160), nn.Linear(160, VISION)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc2(nn.functional.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(VISION, eps=1e-6), nn.LayerNorm(VISION, eps=1e-6)
        self.attn, self.mlp = Attn(), Mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


class PatchEmbed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, VISION, PATCH, PATCH)


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, VISION))
        self.pos_embed = nn.Parameter(torch.zeros(1, (IMAGE_SIZE // PATCH) ** 2 + 1, VISION))
        self.patch_embed = PatchEmbed()
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(VISION, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.norm(x)
        return out


class BertSelf(nn.Module):
    def __init__(self, seen: int) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(TEXT, TEXT), nn.Linear(seen, TEXT), nn.Linear(seen, TEXT)


class BertOut(nn.Module):
    def __init__(self, inner: int) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(inner, TEXT), nn.LayerNorm(TEXT, eps=1e-12)

    def forward(self, hidden: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.LayerNorm(self.dense(hidden) + before)
        return out


class BertAttention(nn.Module):
    def __init__(self, seen: int) -> None:
        super().__init__()
        self.self = BertSelf(seen)
        self.output = BertOut(TEXT)

    def forward(self, x: torch.Tensor, seen: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        looked = attend(self.self.query(x), self.self.key(seen), self.self.value(seen), mask)
        out: torch.Tensor = self.output(looked, x)
        return out


class Dense(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, outer)


class BertLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.crossattention = BertAttention(TEXT), BertAttention(VISION)
        self.intermediate, self.output = Dense(TEXT, 96), BertOut(96)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        x = self.attention(x, x, mask)
        x = self.crossattention(x, picture, None)
        out: torch.Tensor = self.output(nn.functional.gelu(self.intermediate.dense(x)), x)
        return out


class BertEmbeddings(nn.Module):
    def __init__(self, words: int) -> None:
        super().__init__()
        self.word_embeddings, self.position_embeddings = nn.Embedding(words, TEXT), nn.Embedding(40, TEXT)
        self.LayerNorm = nn.LayerNorm(TEXT, eps=1e-12)
        self.register_buffer("position_ids", torch.arange(40)[None])


class BertEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer() for _ in range(DEPTH))


class BertModel(nn.Module):
    def __init__(self, words: int) -> None:
        super().__init__()
        self.embeddings, self.encoder = BertEmbeddings(words), BertEncoder()

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        own = self.embeddings
        x = own.LayerNorm(own.word_embeddings(ids) + own.position_embeddings.weight[: ids.shape[1]])
        for layer in self.encoder.layer:
            x = layer(x, mask, picture)
        out: torch.Tensor = x
        return out


class BlipPretrain(nn.Module):
    def __init__(self, words: int) -> None:
        super().__init__()
        self.visual_encoder, self.text_encoder = VisionTransformer(), BertModel(words)
        self.vision_proj, self.text_proj = nn.Linear(VISION, 16), nn.Linear(TEXT, 16)


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = ((TEXT, 24), (24, 12), (12, 8), (8, 6), (6, 1))
        a, b, c, d, e = (nn.Linear(*each) for each in sizes)
        self.layers = nn.Sequential(a, nn.Dropout(0.2), b, nn.Dropout(0.2), c, nn.Dropout(0.1), d, e)


class OfficialImageReward(nn.Module):
    """`score(pixels, prompt)` for one picture and one prompt, as the official code."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import BertWordPieceTokenizer

        super().__init__()
        self.words = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
        self.words.add_special_tokens(["[DEC]"])
        self.words.add_special_tokens(["[ENC]"])
        self.words.enable_truncation(35)
        self.words.enable_padding(length=35)
        self.blip, self.mlp = BlipPretrain(self.words.get_vocab_size()), MLP()

    @torch.no_grad()
    def score(self, pixels: torch.Tensor, prompt: str) -> float:
        encoded = self.words.encode(prompt)
        ids, mask = torch.tensor([encoded.ids]), torch.tensor([encoded.attention_mask])
        hidden = self.blip.text_encoder(ids, mask, self.blip.visual_encoder(pixels[None]))
        return float((self.mlp.layers(hidden[:, 0]) - MEAN) / STD)


def save_imagereward(folder: Path, seed: int = 0) -> tuple[Path, Any]:
    """Saves `ImageReward.pt` and `vocab.txt` under `folder/tiny-imagereward`; returns the folder and the model."""
    target = folder / "tiny-imagereward"
    target.mkdir(parents=True, exist_ok=True)
    (target / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    model = OfficialImageReward(target).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        scale = 1.0 if "mlp" in name or "embed" in name else 0.2
        if parameter.ndim > 1 and scale < 1:
            scale = 1.5 / parameter[0].numel() ** 0.5
        elif parameter.ndim > 1 and "mlp" in name:
            scale = 1.0 / parameter[0].numel() ** 0.5
        noise = scale * torch.randn(parameter.shape, generator=generator)
        is_norm_weight = parameter.ndim == 1 and "orm" in name and name.endswith("weight")
        parameter.data = noise + (1.0 if is_norm_weight else 0.0)
    torch.save(model.state_dict(), target / "ImageReward.pt")
    return target, model
