"""Models of pictures and texts with one embedding (CLIP) from a folder of transformers: the words that fit pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image

from klarsicht.audit.explanation.models.huggingface_models import HF_EXTRA, LOCAL, quiet, read_network
from klarsicht.audit.explanation.models.specifications import HF_PREFIX, require_saved_model
from klarsicht.ground import optional
from klarsicht.ground.arrays import Floats
from klarsicht.ground.errors import ModelError, UsageError
from klarsicht.ground.foreign import foreign_errors

PROMPT: Final = "a photo of {}"
PICTURES_AT_ONCE: Final = 16


@dataclass(frozen=True)
class TextImageModel:
    """Model whose output has `logits_per_image`, with the processor of its pictures and texts, and its name."""

    network: Any
    processor: Any
    name: str

    def score_words(self, pictures: Sequence[Image.Image], words: Sequence[str]) -> Floats:
        """Compute how well each word fits each picture: softmax over the words of the model's logits, (n, words).
        Source: Radford et al., ICML 2021."""
        texts, scores = [PROMPT.format(word) for word in words], []
        for start in range(0, len(pictures), PICTURES_AT_ONCE):
            some = [picture.convert("RGB") for picture in pictures[start : start + PICTURES_AT_ONCE]]
            inputs = self.processor(text=texts, images=some, return_tensors="pt", padding=True)
            with torch.no_grad():
                scores.append(self.network(**inputs).logits_per_image.double().softmax(1))
        result: Floats = torch.cat(scores).numpy()
        return result


def load_text_image_model(spec: str) -> TextImageModel:
    """Load the model of `hf:FOLDER`. Nothing is downloaded, and code in the folder is not run. Raises UsageError for
    another form, MissingExtra without transformers, and ModelError where the folder holds no such model, no processor
    of pictures and texts, or only some of the weights."""
    if not spec.startswith(HF_PREFIX):
        raise UsageError("names come from a model of transformers", got=spec, rule="hf:FOLDER")
    folder = Path(spec.removeprefix(HF_PREFIX))
    require_saved_model(folder)
    transformers: Any = optional.load("transformers", HF_EXTRA)
    network = read_network(transformers.AutoModel, folder, spec)
    if not all(hasattr(network, name) for name in ("get_text_features", "get_image_features")):
        rule, remedy = "CLIP, or another with get_text_features and get_image_features", "Name another folder."
        raise ModelError(
            "no model of pictures and texts", got=f"{folder}: {type(network).__name__}", rule=rule, remedy=remedy
        )
    remedy = "Save it beside the model: processor.save_pretrained(FOLDER)."
    with quiet(transformers), foreign_errors(ModelError, "no processor of the model", of=spec, remedy=remedy):
        processor = transformers.AutoProcessor.from_pretrained(folder, **LOCAL)
        if not hasattr(processor, "tokenizer"):
            raise ValueError(f"{type(processor).__name__} reads no texts")
    return TextImageModel(network.eval(), processor, folder.resolve().name)
