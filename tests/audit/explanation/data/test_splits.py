"""Three parts without a common source."""

import numpy as np
import pytest

from klarsicht.audit.explanation.data.splits import TEST, TRAIN, VALIDATION, check_disjoint_sources, split_by_source
from klarsicht.ground.errors import UsageError


def test_no_source_is_in_two_parts_and_every_part_has_members():
    rng = np.random.default_rng(0)
    sources = rng.integers(0, 40, 400)
    member = np.isin(sources, [3, 7, 20]) & (rng.random(400) < 0.5)
    part = split_by_source(sources, member, rng)
    for source in range(40):
        assert len(set(part[sources == source])) == 1
    assert set(part[member]) == {TRAIN, VALIDATION, TEST}


def test_two_fifths_one_fifth_two_fifths():
    part = split_by_source(np.arange(1000), np.arange(1000) < 100, np.random.default_rng(0))
    for rows in (slice(0, 100), slice(100, 1000)):
        assert np.bincount(part[rows]).tolist() == [len(part[rows]) * share // 5 for share in (2, 1, 2)]


def test_members_of_two_sources_are_too_few():
    with pytest.raises(UsageError, match="2 source"):
        split_by_source(np.arange(9), np.arange(9) < 2, np.random.default_rng(0))


def test_showing_on_what_was_fitted_on_is_refused():
    check_disjoint_sources(np.array([1, 2]), np.array([3]))
    with pytest.raises(UsageError, match="fitted on"):
        check_disjoint_sources(np.array([1, 2]), np.array([2, 3]))


def test_of_two_artifacts_each_has_members_in_every_part_and_one_alone_is_dealt_as_before():
    rng, sources = np.random.default_rng(1), np.repeat(np.arange(60), 2)
    members = np.stack([np.isin(sources, [3, 7, 20]), np.isin(sources, [20, 30, 31, 32, 33])])
    part = split_by_source(sources, members, rng)
    assert [set(part[some]) for some in members] == [{TRAIN, VALIDATION, TEST}] * 2
    alone = [split_by_source(sources, some, np.random.default_rng(2)) for some in (members[0], members[:1])]
    assert alone[0].tolist() == alone[1].tolist()
    with pytest.raises(UsageError, match="2 source"):
        split_by_source(sources, np.stack([members[0], np.isin(sources, [40, 41])]), rng)
