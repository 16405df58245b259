"""Losses of paired shares: the score interval against its definition, its promise, and McNemar's test."""

import numpy as np
import pytest
from scipy import optimize, stats

from klarsicht.numerics.statistics.intervals import Z95
from klarsicht.numerics.statistics.paired_loss import MOST, PairedLoss, items_to_settle, paired_loss, score_limit


def answers(lost, won, n, right=0.5):
    """Answers before and after of n items, of which so many are lost and won."""
    before, after = (np.zeros(n, bool) for _ in range(2))
    before[:lost], after[lost : lost + won] = True, True
    both = slice(lost + won, lost + won + int(right * (n - lost - won)))
    before[both] = after[both] = True
    return before, after


def literal_score(lost, won, n, loss):
    """The score by the most likely share won under a loss, found by search and not by its equation."""

    def unlikely(q):
        rest = 1 - loss - 2 * q
        if min(q + loss, rest) <= 0:
            return 1e9
        return -(lost * np.log(q + loss) + (won * np.log(q) if won else 0) + (n - lost - won) * np.log(rest))

    low = max(1e-12, -loss + 1e-12)
    q = optimize.minimize_scalar(unlikely, bounds=(low, (1 - loss) / 2), method="bounded", options={"xatol": 1e-12}).x
    return (lost - won - n * loss) / np.sqrt(n * (2 * q + loss * (1 - loss)))


@pytest.mark.parametrize(("lost", "won", "n"), [(7, 3, 90), (12, 12, 400), (9, 2, 400), (30, 1, 60)])
def test_the_ends_are_where_the_score_is_as_large_as_z(lost, won, n):
    found = paired_loss(*answers(lost, won, n))
    assert (found.value, found.n, found.changed) == ((lost - won) / n, n, lost + won)
    assert literal_score(lost, won, n, found.low) == pytest.approx(Z95, abs=2e-3)
    assert literal_score(lost, won, n, found.high) == pytest.approx(-Z95, abs=2e-3)


def test_where_nothing_changed_the_ends_are_known_in_closed_form():
    """n D^2 / (D (1 - D)) = z^2 gives D = z^2 / (n + z^2)."""
    for n in (20, 400, 10_000):
        found = paired_loss(*answers(0, 0, n))
        assert found.high == pytest.approx(Z95**2 / (n + Z95**2), abs=1e-9)
        assert found.low == pytest.approx(-found.high, abs=1e-9)


def test_nought_lies_within_just_where_mcnemars_test_says_so():
    for lost in range(1, 40):
        for won in (0, 3, 9):
            found = paired_loss(*answers(lost, won, 200))
            p = stats.chi2.sf((lost - won) ** 2 / (lost + won), 1)
            assert (found.low <= 0 <= found.high) == (p >= 0.05)


@pytest.mark.parametrize("won", [0.0, 0.0025, 0.01])
@pytest.mark.parametrize(("n", "bound"), [(400, 0.005), (1000, 0.005), (90, 0.02), (400, 0.02)])
def test_a_loss_on_its_bound_is_seldom_called_within_or_beyond(n, bound, won):
    """Summed over all counts, not drawn: at most 2.5 % on either side, but for what counts are whole numbers."""
    lost = bound + won
    many = range(int(stats.binom.ppf(1 - 1e-7, n, lost)) + 1)
    within = beyond = 0.0
    for b in many:
        for c in range(int(stats.binom.ppf(1 - 1e-7, n, won)) + 1):
            p = stats.binom.pmf(b, n, lost) * (stats.binom.pmf(c, n - b, won / (1 - lost)) if won else 1)
            if p > 1e-9:
                within += p * (score_limit(b, c, n, -Z95) <= bound)
                beyond += p * (score_limit(b, c, n, Z95) > bound)
    assert within <= 0.03
    assert beyond <= 0.04


def test_nothing_measured_is_no_figure():
    none = np.zeros(0, bool)
    assert np.isnan(paired_loss(none, none).low)
    assert paired_loss(none, none).n == 0


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (2, 2), (9, 2), (3, 6)])
def test_as_many_items_as_are_named_settle_the_loss_four_times_in_five(lost, won):
    """True shares drawn from what 400 items say of them (Jeffreys), then so many other items drawn with these."""
    bound, rng = 0.005, np.random.default_rng(0)
    found = paired_loss(*answers(lost, won, 400))
    assert found.low <= bound < found.high
    n = items_to_settle(found, bound)
    shares = rng.dirichlet((lost + 0.5, won + 0.5, 400 - lost - won + 0.5), 400)
    settled = 0
    for b, c, _ in (rng.multinomial(n, p) for p in shares):
        settled += score_limit(b, c, n, -Z95) <= bound or score_limit(b, c, n, Z95) > bound
    assert 0.75 < settled / 400 < 0.93


def test_a_loss_farther_from_its_bound_is_settled_by_fewer():
    found = [items_to_settle(paired_loss(*answers(lost, 0, 400)), 0.005) for lost in (4, 6, 12)]
    assert found == sorted(found, reverse=True)
    on_it = PairedLoss(0.005, 0.005 - 1e-9, 0.005 + 1e-9, 10**9, 10**7)
    assert items_to_settle(on_it, 0.005) == MOST
