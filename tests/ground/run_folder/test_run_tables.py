"""Tables of a run folder. Oracle: pyarrow itself."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from klarsicht.ground.errors import StoreError
from klarsicht.ground.run_folder.store import RunStore


def test_parts_are_joined_in_the_order_of_units(store):
    for unit in (100_001, 2, 0):
        store.write_part("scores", unit, {"unit": np.array([unit, unit]), "key": ["a", "b"]})
    joined = store.table("scores")
    assert joined.column("unit").to_pylist() == [0, 0, 2, 2, 100_001, 100_001]
    assert parquet.read_table(store.path / "tables/scores/00002.parquet").column("key").to_pylist() == [
        "a",
        "b",
    ]


def test_a_step_takes_only_the_parts_it_marked(store):
    for unit in (0, 1):
        written = store.write_part("scores", unit, {"unit": [unit]})
    with pytest.raises(StoreError, match="no table"):
        store.table("scores", step="score")
    store.mark_done("score", 1, written)
    assert store.table("scores", step="score").column("unit").to_pylist() == [1]


def test_whole_table_stands_in_front_of_its_parts(store):
    assert not store.has_table("t")
    store.write_part("t", 0, {"a": [0]})
    assert store.has_table("t")
    store.write_table("t", pa.table({"a": [7]}, metadata={"root": "x"}))
    assert store.table("t", step="never run").column("a").to_pylist() == [7]
    assert store.table("t").schema.metadata[b"root"] == b"x"


def test_folders_named_like_partitions_add_no_columns(tmp_path):
    store = RunStore.create(tmp_path / "lr=3", settings={}, identity={})
    store.write_table("t", {"a": [1]})
    assert store.table("t").column_names == ["a"]


def test_a_table_of_blocks_is_that_of_their_rows(store):
    rows = [{"a": i, "b": str(i)} for i in range(7)]
    store.write_blocks("t", (pa.Table.from_pylist(rows[i : i + 3]) for i in range(0, 7, 3)))
    assert store.table("t").to_pylist() == rows
    assert parquet.ParquetFile(store.path / "tables/t.parquet").num_row_groups == 3
    assert store.texts("t", "b") == [row["b"] for row in rows]
