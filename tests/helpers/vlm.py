"""A tiny LLaVA-OneVision with random weights, with its tokenizer, processor and chat template, made in the process.

Law: the files are what transformers writes itself; nothing of t2ialign has a hand in them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

IMAGE_SIZE, PATCH = 16, 8
LAYERS, WIDTH = 3, 32
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _tokenizer() -> Any:
    """Bytes, and the special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=8192
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    return tokenizer


def save_vlm(folder: Path, seed: int = 0, chat_template: str | None = CHAT_TEMPLATE) -> Path:
    """Saves model and processor under `folder/tiny-vlm`; its texts never end by themselves."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
        Qwen2Config,
        SiglipVisionConfig,
    )

    tokenizer = _tokenizer()
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    shape = {"hidden_size": WIDTH, "intermediate_size": 48, "num_attention_heads": 4}
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**shape, num_hidden_layers=2, image_size=IMAGE_SIZE, patch_size=PATCH),
        text_config=Qwen2Config(
            **shape,
            num_hidden_layers=LAYERS,
            num_key_value_heads=2,
            vocab_size=len(tokenizer),
            max_position_embeddings=8192,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_grid_pinpoints=[[IMAGE_SIZE, IMAGE_SIZE], [2 * IMAGE_SIZE, IMAGE_SIZE]],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaOnevisionForConditionalGeneration(config)
        for parameter in model.parameters():  # far from the tiny initial values, so that mistakes show
            torch.nn.init.normal_(parameter, std=0.6)
    target = folder / "tiny-vlm"
    model.save_pretrained(target)
    LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=config.image_grid_pinpoints),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(IMAGE_SIZE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=chat_template,
    ).save_pretrained(target)
    return target
