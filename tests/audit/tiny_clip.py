"""A CLIP with random weights, small enough for a test, and a vocabulary of single letters."""

from __future__ import annotations

import json
from pathlib import Path

import torch

SIDE = 24


def save_clip(folder: Path) -> Path:
    """Write a folder of save_pretrained with network and processor."""
    import transformers

    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{one}</w>" for one in letters)]
    (folder / "words.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "pairs.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(folder / "words.json"), str(folder / "pairs.txt"))
    part = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**part, "vocab_size": len(tokens), "bos_token_id": 0, "eos_token_id": 1},
        vision_config={**part, "image_size": SIDE, "patch_size": 8}, projection_dim=8,
    )  # fmt: skip
    transformers.CLIPModel(config).eval().save_pretrained(folder)
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    transformers.CLIPProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder
