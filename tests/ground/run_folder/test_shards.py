"""Shards. Oracles: what SLURM and torchrun set, by their manuals; laws of a partition; threads that race."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klarsicht.ground.errors import UsageError
from klarsicht.ground.run_folder.shards import Shard, Shares, Sharing, own_command


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
def test_every_unit_is_in_one_share(count, units):
    shares = [Sharing(Shard(index, count)).own(sorted(units)) for index in range(count)]
    assert sorted(unit for share in shares for unit in share) == sorted(units)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1 or units != set(range(len(units)))
    assert Sharing().own(sorted(units)) == sorted(units)


@given(st.integers(1, 20), st.sets(st.integers(0, 200)))
def test_the_missing_shares_are_those_that_own_what_is_not_done(count, undone):
    missing = Shares(count, "do --shard {}").list_missing(undone)
    owners = [index for index in range(count) if Sharing(Shard(index, count)).own(undone)]
    assert [shard.index for shard in missing] == owners


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["/bin/klarsicht", "audit", "rank", "a run", "--shard", "1/3"], "klarsicht audit rank 'a run' --shard 2/3"),
        (["/x/klarsicht/__main__.py", "audit", "run", "--shard=auto"], "klarsicht audit run --shard 2/3"),
        (["notebook.py", "run"], 'the same call with shard="2/3"'),
    ],
)  # fmt: skip
def test_the_command_of_another_share(words, command):
    assert Shares(3, own_command(words)).command_of(Shard(1, 3)) == command


def test_what_is_no_unit_is_done_in_turns(tmp_path):
    log = []

    def action():
        log.append("begin")
        threading.Event().wait(0.01)
        log.append("end")

    threads = [
        threading.Thread(target=Sharing(Shard(number, 4), tmp_path / "turn").once, args=("a", action))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log == ["begin", "end"] * 4


def test_where_an_action_fails_the_turn_ends(tmp_path):
    sharing = Sharing(Shard(0, 2), tmp_path / "turn")
    with pytest.raises(ZeroDivisionError):
        sharing.once("a", lambda: 1 / 0)
    done = []
    sharing.once("a", lambda: done.append(1))
    assert done == [1]
