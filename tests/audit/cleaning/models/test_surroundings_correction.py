"""A small network that has learned the surroundings is trained on own places; groups are counted by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from tests.audit.conftest import in_brief
from tests.audit.verdicts.own_places.test_own_places import draw_squares
from torch import nn
from torch.nn.functional import cross_entropy

from klarsicht.audit.cleaning.corrections.packages import load_correction
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.cleaning.models.surroundings_correction import clean_surroundings, tabulate
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.verdicts.quantification.quantification import open_run
from klarsicht.audit.verdicts.quantification.surroundings import examine_surroundings
from klarsicht.ground.errors import StoreError

NAMES = ("dark", "light")


class Small(nn.Module):
    """Three convolutions, then the mean answer of each channel."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 24, 3, 1, 1), nn.ReLU(), nn.Conv2d(24, 24, 3, 2, 1),
            nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(24, 2)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def trained(images, labels):
    """A network trained on images (n, H, W, 3) for twelve epochs, in evaluation mode."""
    torch.manual_seed(0)
    net, x, y = Small(), torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(labels)
    optimizer, rng = torch.optim.Adam(net.parameters(), 2e-3), np.random.default_rng(0)
    for _ in range(12):
        for rows in np.array_split(rng.permutation(len(x)), len(x) // 32):
            optimizer.zero_grad()
            cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval()


def right_of(net, images, labels, odd):
    """Share that is right of exceptions and of the others, by another drawing of the same kind."""
    with torch.no_grad():
        says = net(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).argmax(1).numpy()
    return (says == labels)[odd].mean(), (says == labels)[~odd].mean()


@pytest.mark.slow
def test_the_worst_group_of_fresh_images_gains_and_the_exported_model_says_the_same(tmp_path):
    images, labels, _, _ = draw_squares(400, 12, np.random.default_rng(5))
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / "data" / NAMES[label]).mkdir(exist_ok=True, parents=True)
        Image.fromarray(image).save(tmp_path / "data" / NAMES[label] / f"{i:03d}.png")
    net = trained(images, labels)
    classifier, run = load_model(net, classes=NAMES), tmp_path / "run"
    settings = AuditSettings(model="object", data=str(tmp_path / "data"), method="HeadRelevance", batch=64)
    with in_brief(60):
        pipeline.run(settings, run, classifier=classifier, accept_labels=True)
    with pytest.raises(StoreError, match="surroundings"):
        clean_surroundings(run, classifier=classifier)
    with open_run(run, level=0.05, workers=1, data=None, classifier=classifier) as (audit, work):
        assert examine_surroundings(audit, work, 1).relied_on

    result = clean_surroundings(run, CleanSettings(steps=300, batch=32, rate=2e-3), classifier=classifier)
    assert result.helps and result.after.worst.right.value > result.before.worst.right.value + 0.3
    fresh = draw_squares(400, 200, np.random.default_rng(6))
    before = right_of(net, *fresh[:3])
    correction, _ = load_correction(result.folder)
    with correction.applied(net):
        after = right_of(net, *fresh[:3])
        says = net(torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)))
    assert after[0] > before[0] + 0.2 and after[1] > before[1] - 0.05
    exported = torch.export.load(result.folder / "model.pt2").module()
    torch.testing.assert_close(exported(torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))), says)


def test_groups_are_counted_as_by_hand():
    table = tabulate(
        np.array([0, 0, 1, 1, 0, 1]), np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 0]), {0: "a", 1: "b"}
    )
    found = {(one.label, one.side): (one.right.value, one.right.n) for one in table.groups}
    assert found == {("a", "a"): (1.0, 2), ("a", "b"): (0.0, 1), ("b", "b"): (0.5, 2), ("b", "a"): (1.0, 1)}
    assert table.average == pytest.approx(2.5 / 4) and (table.worst.label, table.worst.side) == ("a", "b")
