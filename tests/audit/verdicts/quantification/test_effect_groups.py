"""The group that the rise makes: a planted one from noisy effects, and laws of the folds and of the parting."""

import numpy as np
import pytest
from scipy.stats import norm
from skimage.filters import threshold_otsu
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from klarsicht.audit.verdicts.interventions.regions import correlation
from klarsicht.audit.verdicts.quantification import effect_groups

RNG = np.random.default_rng(0)
N, MEMBERS, F = 120, 30, 40
MEMBER = np.arange(N) < MEMBERS


def planted(noise):
    features = RNG.normal(size=(N, F))
    features[MEMBER, :5] += 3
    return features, 2.0 * MEMBER + RNG.normal(0, noise, N)


def test_features_make_up_for_effects_that_are_noisy():
    features, rise = planted(noise=1.2)
    half = RNG.permutation(N) < N // 2
    found = effect_groups.select_upper_group(features, np.arange(N), rise, half)
    alone = rise >= effect_groups.otsu_threshold(rise)
    assert (found != MEMBER).sum() <= 2 < (alone != MEMBER).sum()


def test_no_image_is_foretold_from_its_own_half():
    features, rise = planted(noise=0.5)
    half = np.arange(N) % 2 == 0
    for side in (half, ~half):
        fit = make_pipeline(StandardScaler(), RidgeCV(effect_groups.RIDGE_PENALTIES)).fit(features[side], rise[side])
        told = effect_groups.predict_rise(features, np.arange(N), rise, half)
        np.testing.assert_allclose(told[~side], fit.predict(features[~side]))
    other = rise.copy()
    other[0] += 100  # its own effect, changed
    assert effect_groups.predict_rise(features, np.arange(N), other, half)[0] == pytest.approx(told[0])


def test_images_that_were_not_tried_are_foretold_too():
    features, rise = planted(noise=0.3)
    tried = np.sort(RNG.permutation(N)[:90])
    found = effect_groups.select_upper_group(features, tried, rise[tried], np.arange(90) % 2 == 0)
    assert (found != MEMBER).mean() < 0.05


@pytest.mark.parametrize("noise", [0.3, 5.0])
def test_a_continuum_makes_no_group(noise):
    """A rise that many features foretell a little each is one bell, however well it is foretold."""
    features = RNG.normal(size=(300, F))
    rise = features @ RNG.normal(size=F) + RNG.normal(0, noise, 300)
    assert not effect_groups.select_upper_group(features, np.arange(300), rise, np.arange(300) % 2 == 0).any()


def test_a_group_of_more_than_half_is_none():
    features, rise = planted(noise=0.3)
    half = np.arange(N) % 2 == 0
    assert (effect_groups.select_upper_group(features, np.arange(N), rise, half) != MEMBER).sum() <= 3
    assert not effect_groups.select_upper_group(features, np.arange(N), -rise, half).any()


@pytest.mark.parametrize(
    ("values", "share"), [(np.linspace(0, 1, 4001), 0.75), (norm.ppf(np.linspace(1e-4, 1 - 1e-4, 9999)), 2 / np.pi)]
)
def test_a_cut_through_one_group_explains_what_it_must(values, share):
    """Closed forms: three quarters of a flat distribution, 2 / pi of a normal one."""
    assert correlation(values >= effect_groups.otsu_threshold(values), values) ** 2 == pytest.approx(share, abs=5e-3)


def test_the_parting_is_otsus():
    """Literally, the largest of all partings' variances between groups; scikit-image's is the best at edges of bins."""

    def between(upper):
        return upper.mean() * (1 - upper.mean()) * (values[upper].mean() - values[~upper].mean()) ** 2

    values = np.concatenate([RNG.normal(0, 1, 300), RNG.normal(5, 1, 100)])
    found = effect_groups.otsu_threshold(values)
    assert found == max(np.sort(values)[1:], key=lambda threshold: between(values >= threshold))
    assert between(values >= found) == pytest.approx(between(values > threshold_otsu(values, nbins=4096)), rel=1e-3)
