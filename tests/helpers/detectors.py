"""Zero-shot detectors of a few thousand random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.tiny import tiny_tokenizer

SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def tiny_owl(folder: Path, *, kind: str = "Owlv2") -> Path:
    """Save an OWLv2, or an OWL-ViT (`kind="OwlViT"`), with its processor."""
    import transformers

    tokenizer = tiny_tokenizer()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        text_config={**SHAPE, "vocab_size": len(tokenizer), "max_position_embeddings": 77, **ends},
        vision_config={**SHAPE, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    model = getattr(transformers, f"{kind}ForObjectDetection")(config)
    tokenizer.model_max_length = 77
    pictures = getattr(transformers, f"{kind}ImageProcessor")(size={"height": 32, "width": 32})
    processor = getattr(transformers, f"{kind}Processor")(pictures, tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def tiny_grounding_dino(folder: Path) -> Path:
    """Save a Grounding DINO on a Swin of one block a stage, with a tokenizer of letters."""
    from transformers import (
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), model_max_length=64)
    torch.manual_seed(0)
    backbone = {
        "model_type": "swin", "image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [1, 1, 1, 1],
        "num_heads": [2, 2, 2, 2], "window_size": 4, "out_features": ["stage2", "stage3", "stage4"],
    }  # fmt: skip
    text = {**SHAPE, "model_type": "bert", "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2, num_queries=12,
        max_text_len=64,
    )  # fmt: skip
    model = GroundingDinoForObjectDetection(config)
    pictures = GroundingDinoImageProcessor(size={"shortest_edge": 128, "longest_edge": 192})
    model.save_pretrained(folder)
    GroundingDinoProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every loading of a model or a scorer fail."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded, although everything is there")

    for name in ("t2ialign.models.loading.load_model", "t2ialign.reward_models.registry.load_scorer"):
        monkeypatch.setattr(name, refuse)
