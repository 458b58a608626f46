"""Tiny chat models with random weights, made in the process from the configurations of their real classes.

Law: the files are what the libraries write themselves; nothing of t2ialign has a hand in them. Each is a function of
its arguments alone. Weights are drawn wide, so that answers differ from question to question.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

IMAGE_TOKEN = "<image>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | upper }}: {% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"image_size": 32, "patch_size": 16}


def letters(*, begins: bool = True) -> Any:
    """A tokenizer of the printable characters of ASCII, a token each; it puts `<s>` first where texts begin so."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", IMAGE_TOKEN]
    words = special + [chr(code) for code in range(33, 127)] + ["Ġ"]
    tokenizer = Tokenizer(BPE(vocab={word: number for number, word in enumerate(words)}, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in special])
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    if begins:
        named["bos_token"] = "<s>"
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def _wide(model: Any, seed: int, std: float) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=std)
    return model.eval()


def _text_shape(tokenizer: Any) -> dict[str, Any]:
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return shape | ids | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}


def save_llava(folder: Path, seed: int = 0) -> Path:
    """Saves a LlavaForConditionalGeneration with its processor and a chat template under `folder/tiny-llava`."""
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = letters()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(**_text_shape(tokenizer), max_position_embeddings=2048),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=4,
    )
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(**sizes),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    target = folder / "tiny-llava"
    _wide(LlavaForConditionalGeneration(config), seed, 0.25).save_pretrained(target)
    processor.save_pretrained(target)
    return target


def save_blip(folder: Path, seed: int = 0) -> Path:
    """Saves a BlipForConditionalGeneration, a plain captioner without a chat template, under `folder/tiny-blip`."""
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil, BlipProcessor

    tokenizer = letters()
    text = _text_shape(tokenizer) | {"sep_token_id": tokenizer.eos_token_id, "encoder_hidden_size": 16}
    config = BlipConfig(text_config=text | {"projection_dim": 16}, vision_config=VISION, projection_dim=16)
    target = folder / "tiny-blip"
    _wide(BlipForConditionalGeneration(config), seed, 0.3).save_pretrained(target)
    size = {"height": 32, "width": 32}
    BlipProcessor(image_processor=BlipImageProcessorPil(size=size), tokenizer=tokenizer).save_pretrained(target)
    return target


def save_llama(folder: Path, seed: int = 0, *, template: bool = True) -> Path:
    """Saves a LlamaForCausalLM under `folder/tiny-llama`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = letters()
    if template:
        tokenizer.chat_template = CHAT_TEMPLATE
    target = folder / "tiny-llama"
    config = LlamaConfig(**_text_shape(tokenizer), max_position_embeddings=2048)
    _wide(LlamaForCausalLM(config), seed, 0.3).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def save_t5(folder: Path, seed: int = 0) -> Path:
    """Saves a T5ForConditionalGeneration under `folder/tiny-t5`."""
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = letters(begins=False)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    target = folder / "tiny-t5"
    _wide(T5ForConditionalGeneration(config), seed, 0.3).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def save_vit_gpt2(folder: Path, seed: int = 0) -> Path:
    """Saves a VisionEncoderDecoderModel, without a processor that joins both sides, under `folder/tiny-vit-gpt2`."""
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessorPil,
    )

    tokenizer = letters()
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=64, **ids)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(**VISION), text, decoder_start_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    target = folder / "tiny-vit-gpt2"
    _wide(VisionEncoderDecoderModel(config=config), seed, 0.3).save_pretrained(target)
    tokenizer.save_pretrained(target)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(target)
    return target


def save_git(folder: Path, seed: int = 0) -> Path:
    """Saves a GitForCausalLM, a plain captioner that writes after the picture, under `folder/tiny-git`."""
    from transformers import CLIPImageProcessorPil, GitConfig, GitForCausalLM, GitProcessor

    tokenizer = letters()
    config = GitConfig(vision_config=VISION, **_text_shape(tokenizer), max_position_embeddings=64)
    target = folder / "tiny-git"
    _wide(GitForCausalLM(config), seed, 0.3).save_pretrained(target)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    GitProcessor(image_processor=CLIPImageProcessorPil(**sizes), tokenizer=tokenizer).save_pretrained(target)
    return target
