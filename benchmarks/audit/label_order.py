"""Count how often permuted labels are named, where labels are permuted and where not: simulated confusions, no images.

A model of K classes is right on a share of its images and otherwise predicts classes by a bias of its own, drawn from a
Dirichlet distribution (concentration 1) anew for each simulation; or it predicts half of its errors, at most as many as
it gets right, as the sibling of the class. Of n images a class, the labels of two siblings are swapped, or none.

    python benchmarks/audit/label_order.py
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.explanation.data.label_order import Order

SIMULATIONS = 500
COLUMNS = ("classes", "images a class", "right", "two swapped: named", "siblings swapped: named", "none: any named")


def main() -> None:
    rng = np.random.default_rng(0)
    print(" | ".join(COLUMNS))
    for classes in (2, 6, 100):
        for n in (20, 50):
            for accuracy in (0.0, 0.2, 0.4, 0.6, 0.9):
                shares = (
                    rate(rng, classes, n, accuracy, swapped=True, siblings=False),
                    rate(rng, classes, n, accuracy, swapped=True, siblings=True),
                    max(rate(rng, classes, n, accuracy, swapped=False, siblings=s) for s in (False, True)),
                )
                print(" | ".join(map(str, (classes, n, accuracy, *shares))))


def rate(rng: np.random.Generator, classes: int, n: int, accuracy: float, *, swapped: bool, siblings: bool) -> float:
    """Share of simulations in which permuted labels are named; where two are swapped, exactly these two."""
    order = np.arange(classes)
    order[:2] = order[:2][::-1] if swapped else order[:2]
    named = 0
    for _ in range(SIMULATIONS):
        truth = np.repeat(np.arange(classes), n)
        found = Order.of(order[truth], predict(rng, truth, classes, accuracy, siblings), classes).permuted
        named += {one.outputs for one in found} == {(0, 1)} if swapped else bool(found)
    return named / SIMULATIONS


def predict(
    rng: np.random.Generator, truth: NDArray[np.intp], classes: int, accuracy: float, siblings: bool
) -> NDArray[np.intp]:
    bias = rng.dirichlet(np.ones(classes))
    wrong = rng.choice(classes, len(truth), p=bias)
    if siblings:  # 0 and 1, 2 and 3, ...
        sibling = np.minimum(truth ^ 1, classes - 1)
        share = min(0.5, accuracy / (1 - accuracy))
        wrong = np.where(rng.random(len(truth)) < share, sibling, wrong)
    return np.where(rng.random(len(truth)) < accuracy, truth, wrong)


if __name__ == "__main__":
    main()
