"""Layers that are searched: of many, those at which one direction takes most of the effect away."""

import torch
from tests.audit import shortcut
from torch import nn

from klarsicht.audit.cleaning.corrections.closed_form import CLOSED, FittingData
from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest
from klarsicht.audit.cleaning.corrections.setting_search import Grid, select_layers, try_settings
from klarsicht.audit.explanation.models.classifier import load_model

METHODS = {name: CLOSED[name] for name in ("oblique", "reactive")}


class LateShortcut(nn.Module):
    """The network of `shortcut`, whose fourth channel, the mark, enters after `body`: an erasure there is in vain."""

    def __init__(self):
        super().__init__()
        known = shortcut.Shortcut()
        self.body, self.last, self.head = known.body, known.last, known.head

    def forward(self, x):
        seen = torch.cat([self.body(x)[:, :3], x[:, 3:]], 1)
        return self.head(self.last(seen).mean((2, 3)))


def data_and_test():
    classifier = load_model((LateShortcut().eval(), lambda image: image))
    sample = shortcut.sample(90)
    return FittingData(classifier, shortcut.TARGET, sample, shortcut.place()), CorrectionTest(
        classifier, shortcut.sample(90, 1), shortcut.TARGET, shortcut.place()
    )


def test_the_layers_are_searched_that_the_artifact_passes_through():
    data, test = data_and_test()
    layers, loose = ("body", "last", "head"), Bounds(1.0, 1.0)
    for most, selected in ((1, 1), (2, 2), (0, 3), (3, 3)):
        some = select_layers(layers, METHODS, data, test, loose, Grid(most_layers=most))
        assert len(some) == selected and list(some) == [layer for layer in layers if layer in some]
        assert ("body" in some) == (selected == 3)
    found = try_settings(METHODS, data, test, loose, Grid(layers, (1,), (1.0,), most_layers=2))
    assert {one.setting.layer for one in found} == {"last", "head"}
    assert max(one.gained.value for one in found) > 0.7
