"""Models of pictures and texts: scores are those of transformers itself, from a tiny CLIP with random weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tests.audit.tiny_clip import save_clip

from klarsicht.audit.explanation.models.text_image_models import PICTURES_AT_ONCE, PROMPT, load_text_image_model
from klarsicht.ground.errors import ModelError, UsageError

transformers = pytest.importorskip("transformers")
WORDS = ("a cat", "text", "a ruler")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip"))


def pictures(count):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)) for _ in range(count)]


def test_scores_are_the_softmax_of_the_logits_of_transformers(folder):
    some = pictures(PICTURES_AT_ONCE + 3)
    model = load_text_image_model(f"hf:{folder}")
    scores = model.score_words(some, WORDS)
    network = transformers.CLIPModel.from_pretrained(folder, local_files_only=True).eval()
    processor = transformers.CLIPProcessor.from_pretrained(folder, local_files_only=True)
    texts = [PROMPT.format(word) for word in WORDS]
    with torch.no_grad():
        logits = network(**processor(text=texts, images=some, return_tensors="pt", padding=True)).logits_per_image
    np.testing.assert_allclose(scores, logits.softmax(1).numpy(), rtol=1e-4)
    assert scores.shape == (len(some), 3) and model.name == folder.name
    assert np.ptp(scores, 0).max() > 1e-4  # it depends on the picture


def test_what_is_no_model_of_pictures_and_texts_is_refused_in_one_line(folder, tmp_path):
    with pytest.raises(UsageError, match="hf:FOLDER"):
        load_text_image_model("timm:resnet18")
    with pytest.raises(ModelError, match=r"nothing is ever downloaded"):
        load_text_image_model(f"hf:{tmp_path}")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    with pytest.raises(ModelError, match=r"no model of pictures and texts; got .*ViTModel"):
        load_text_image_model(f"hf:{tmp_path / 'vit'}")
    bare = shutil.copytree(folder, tmp_path / "bare")
    for file in [*bare.glob("*token*"), *bare.glob("*processor*"), *bare.glob("vocab*"), *bare.glob("merges*")]:
        file.unlink()
    with pytest.raises(ModelError, match="no processor of the model"):
        load_text_image_model(f"hf:{bare}")
    (folder.parent / "odd").mkdir()
    (folder.parent / "odd" / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(ModelError, match="transformers cannot load the model"):
        load_text_image_model(f"hf:{folder.parent / 'odd'}")
