"""A tiny model that takes images, with random weights, as `transformers` saves it; and images."""

from __future__ import annotations

import io
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from PIL import Image

TILE, PATCH = 48, 8
"""A side has six patches, whose shares are no powers of two."""
LONGEST = 3 * TILE
CONTROLS = (
    "<|im_start|>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<image>",
    "<global-img>",
    *(f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)),
)
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""As the family's processors have it; content must be a list of parts."""


@dataclass(frozen=True)
class Seeing:
    """A model's folder, and the reference for it."""

    folder: pathlib.Path
    processor: Any
    model: Any

    def inputs(self, *content: str | Image.Image) -> Any:
        """What the reference's processor makes of one user's turn."""
        parts = [{"type": "text", "text": c} if isinstance(c, str) else {"type": "image"} for c in content]
        images = [c for c in content if not isinstance(c, str)]
        turn = [{"role": "user", "content": parts}]
        text = self.processor.apply_chat_template(turn, add_generation_prompt=True)
        return self.processor(text=text, images=images or None, return_tensors="pt", add_special_tokens=False)

    def logits(self, inputs: Any) -> np.ndarray:
        """Of every token of the prompt [T, V]."""
        with torch.inference_mode():
            return self.model(**inputs).logits[0].float().numpy()


def seeing(folder: pathlib.Path, *, kind: str = "idefics3", seed: int = 0) -> Seeing:
    """Writes the model's folder."""
    tokenizer = _tokenizer()
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(
        kind,
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer) + 3,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "max_position_embeddings": 2048,
            "initializer_range": 0.25,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": TILE,
            "patch_size": PATCH,
            "initializer_range": 0.25,
        },
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = transformers.AutoModelForImageTextToText.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    rows = (TILE // PATCH // 2) ** 2
    images = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": LONGEST}, max_image_size={"longest_edge": TILE}
    )
    processor = transformers.Idefics3Processor(images, tokenizer, image_seq_len=rows, chat_template=TEMPLATE)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Seeing(folder=folder, processor=processor, model=model)


def _tokenizer() -> Any:
    words = {letter: i for i, letter in enumerate(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))}
    words["ĊĊ"] = len(words)  # what stands in front of the whole image is one token
    made = tokenizers.Tokenizer(tokenizers.models.BPE(words, merges=[("Ċ", "Ċ")]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(
        [tokenizers.AddedToken(text, special=True, normalized=False) for text in CONTROLS]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end_of_utterance>")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth image of that size with some noise."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (5, 7, 3), np.uint8)
    whole = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noise = random.integers(-20, 20, whole.shape)
    return Image.fromarray((whole + noise).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The image as a file of that format."""
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()
