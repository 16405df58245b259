"""Shards. Oracles: what SLURM and torchrun set, by their manuals; laws of a partition; threads that race."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klarsicht.ground.errors import UsageError
from klarsicht.ground.run_folder.claims import Claims
from klarsicht.ground.run_folder.shards import Shard, Sharing


def array(ids, step=1, ranks=0):
    """Variables of each task of a SLURM job array, and of each rank in it."""
    for number in ids:
        slurm = {
            "SLURM_ARRAY_TASK_ID": str(number),
            "SLURM_ARRAY_TASK_COUNT": str(len(ids)),
            "SLURM_ARRAY_TASK_MIN": str(min(ids)),
            "SLURM_ARRAY_TASK_MAX": str(max(ids)),
            "SLURM_ARRAY_TASK_STEP": str(step),
        }
        yield from [slurm | {"RANK": str(r), "WORLD_SIZE": str(ranks)} for r in range(ranks)] or [slurm]


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        (array(range(16)), 16),
        (array(range(1, 17)), 16),
        (array(range(100, 104)), 4),
        (array(range(0, 40, 4), step=4), 10),
        (array(range(3, 5), ranks=3), 6),
        ([{"RANK": str(r), "WORLD_SIZE": "5"} for r in range(5)], 5),
    ],
)
def test_tasks_and_ranks_are_all_shards_once(variables, count):
    shards = [Shard.parse("auto", one) for one in variables]
    assert sorted(shard.index for shard in shards) == list(range(count))
    assert {shard.count for shard in shards} == {count}


def test_an_array_with_gaps_has_shards_in_range():
    assert all(0 <= Shard.parse("auto", one).index < 3 for one in array([1, 5, 7]))


@pytest.mark.parametrize(
    "variables", [{}, {"RANK": "1"}, {"SLURM_ARRAY_TASK_ID": "3"}, {"RANK": "x", "WORLD_SIZE": "2"}]
)
def test_no_variables_no_shard(variables):
    with pytest.raises(UsageError, match=r"--shard auto finds no shard.*Give --shard K/N"):
        Shard.parse("auto", variables)


def test_shards_are_counted_from_one():
    assert Shard.parse("3/16") == Shard(2, 16)
    assert str(Shard.parse(" 16 / 16")) == "16/16"


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "-1/4", "a/b", "1/0", "", "1/2/3"])
def test_another_text_is_refused(text):
    with pytest.raises(UsageError, match="--shard is not a shard"):
        Shard.parse(text)


@given(st.integers(1, 20), st.sets(st.integers(0, 200)))
def test_every_shard_has_all_units_and_the_first_ones_are_its_own(count, units):
    own = []
    for index in range(count):
        order = Shard(index, count).order(sorted(units))
        assert sorted(order) == sorted(units)
        mine = [unit for unit in order if unit % count == index]
        assert order[: len(mine)] == mine
        own += mine
    assert sorted(own) == sorted(units)


def in_threads(count, action):
    threads = [threading.Thread(target=action, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_what_is_done_once_is_done_once_and_all_wait_for_its_end(tmp_path):
    (tmp_path / "pulses").mkdir()
    log = []

    def share(number):
        sharing = Sharing(Shard(number, 4), Claims(tmp_path))
        for name in "abc":
            sharing.once(name, lambda name=name: log.append(f"begin {name}"))
            log.append(f"past {name}")

    in_threads(4, share)
    assert [line for line in log if line.startswith("begin")] == ["begin a", "begin b", "begin c"]
    for name in "abc":
        assert log.index(f"begin {name}") < log.index(f"past {name}")


def test_where_an_action_fails_another_process_does_it(tmp_path):
    (tmp_path / "pulses").mkdir()
    tried, failed = [], []

    def action():
        tried.append(1)
        if len(tried) == 1:
            raise ValueError("as it happens")

    def share(number):
        try:
            Sharing(Shard(number, 3), Claims(tmp_path)).once("a", action)
        except ValueError:
            failed.append(number)

    in_threads(3, share)
    assert (len(tried), len(failed)) == (2, 1)


def test_alone_everything_is_ones_own():
    done = []
    alone = Sharing()
    alone.once("a", lambda: done.append(1))
    alone.once("a", lambda: done.append(1))
    assert (done, alone.order([3, 1]), alone.take("x"), alone.holds("x")) == ([1, 1], [3, 1], True, True)
    alone.release("x")
