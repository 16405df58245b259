"""Groups that a person names: read from small tables written by hand, and refused in one line."""

import numpy as np
import pytest
from PIL import Image

from klarsicht.audit.cleaning.models.run_groups import read_groups
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.ground.errors import InputError, UsageError

TABLE = "path,label,sky,blank,one\na.png,x,day,,1\nsub/b.png,y,night,,1\nc.png,x,,,1\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a", "sub/b", "c"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    (tmp_path / "table.csv").write_text(TABLE)
    return tmp_path


def test_a_column_of_the_corpus_gives_its_groups_and_blanks_none(folder):
    table = str(folder / "table.csv")
    found = read_groups("sky", open_corpus(table), table)
    np.testing.assert_array_equal(found.numbers, [0, 1, -1])
    assert dict(found.names) == {0: "day", 1: "night"}


def test_a_table_of_its_own_may_name_files_by_other_paths_and_order(folder):
    other = folder / "sub" / "groups.csv"
    other.write_text(f"path,group\n../c.png,land\n{folder / 'a.png'},sea\nb.png,land\nmore.png,sea\n")
    found = read_groups(str(other), open_corpus(str(folder / "table.csv")), str(folder / "table.csv"))
    assert [found.names[int(k)] for k in found.numbers] == ["sea", "land", "land"]


@pytest.mark.parametrize(
    ("groups", "kind", "said"),
    [
        ("moon", InputError, "lacks the column moon.*columns path, label, sky, blank, one.*--groups"),
        ("blank", InputError, "no groups to compare.*blanks"),
        ("one", InputError, "no groups to compare; got 1"),
        ("lacking.csv", InputError, "1 of 3: .*c.png.*one line an image"),
    ],
)
def test_wrong_groups_are_one_line(folder, groups, kind, said):
    (folder / "lacking.csv").write_text("path,group\na.png,1\nsub/b.png,2\n")
    place, table = str(folder / groups) if groups.endswith(".csv") else groups, str(folder / "table.csv")
    with pytest.raises(kind, match=said) as error:
        read_groups(place, open_corpus(table), table)
    assert "\n" not in str(error.value)


def test_a_column_of_a_folder_is_refused(folder):
    classes = folder / "classes"
    for name in ("x", "y"):
        (classes / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(classes / name / "0.png")
    with pytest.raises(UsageError, match=r"no table with groups; got 'sky'.*--groups groups.csv"):
        read_groups("sky", open_corpus(str(classes)), str(classes))
