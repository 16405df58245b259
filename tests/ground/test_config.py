"""Settings. Oracles: tomllib reads back what was written; the messages name what a person typed."""

import inspect
import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, field_validator

from klarsicht.ground.config import PublicSettings, Settings
from klarsicht.ground.errors import InputError, UsageError


class Metric(Settings):
    name: Literal["sliced", "sinkhorn"] = "sliced"
    scale: float = 1.0


class Recipe(Settings):
    data: Path = Path("images")
    neighbours: Annotated[int, Field(ge=2, le=200)] = 10
    title: str = ""
    exact: bool = False
    seeds: tuple[int, ...] = (1, 2)
    limit: float | None = None
    metric: Metric = Metric()
    others: tuple[Metric, ...] = ()
    named: dict[str, Metric] = Field(default_factory=dict)
    words: tuple[tuple[str, ...], ...] = ()

    @field_validator("seeds")
    @classmethod
    def some(cls, seeds):
        if not seeds:
            raise ValueError("at least one seed")
        return seeds


METRICS = st.builds(Metric, name=st.sampled_from(["sliced", "sinkhorn"]), scale=st.floats(allow_nan=False))
TEXT = st.text(st.characters(codec="utf-8"))
RECIPES = st.builds(
    Recipe,
    data=st.just(Path("a b/ü.csv")),
    neighbours=st.integers(2, 200),
    title=TEXT,
    exact=st.booleans(),
    seeds=st.lists(st.integers(), min_size=1).map(tuple),
    limit=st.none() | st.floats(allow_nan=False),
    metric=METRICS,
    others=st.lists(METRICS, max_size=2).map(tuple),
    named=st.dictionaries(TEXT, METRICS, max_size=2),
    words=st.lists(st.lists(TEXT, max_size=2).map(tuple), max_size=2).map(tuple),
)


@given(RECIPES)
def test_toml_round_trip(recipe):
    written = recipe.to_toml()
    assert Recipe.from_mapping(tomllib.loads(written)) == recipe
    assert Recipe.from_mapping(tomllib.loads(written)).to_toml() == written


def test_toml_is_plain_to_read(tmp_path):
    recipe = Recipe(title='say "hi"', named={"a b": Metric()})
    assert recipe.to_toml().splitlines() == [
        'data = "images"',
        "neighbours = 10",
        r'title = "say \"hi\""',
        "exact = false",
        "seeds = [1, 2]",
        "others = []",
        "words = []",
        "",
        "[metric]",
        'name = "sliced"',
        "scale = 1.0",
        "",
        "[named]",
        "",
        '[named."a b"]',
        'name = "sliced"',
        "scale = 1.0",
    ]
    (tmp_path / "s.toml").write_text(recipe.to_toml())
    assert Recipe.from_toml(tmp_path / "s.toml") == recipe


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"neighbors": 3}, "unknown setting; got 'neighbors'. Did you mean neighbours?"),
        ({"metric": {"scales": 3}}, "unknown setting; got 'metric.scales'. Did you mean metric.scale"),
        ({"others": [{}, {"nam": 3}]}, "got 'others.1.nam'. Did you mean others.1.name"),
        ({"named": {"x": {"scal": 3}}}, "got 'named.x.scal'. Did you mean named.x.scale"),
        ({"neighbours": 1}, "setting neighbours; got 1; it should be greater than or equal to 2."),
        ({"neighbours": "many"}, "setting neighbours; got 'many'; it should be a valid integer"),
        ({"metric": {"name": "x"}}, "setting metric.name; got 'x'; it should be 'sliced' or 'sinkhorn'"),
        ({"seeds": []}, "setting seeds; got []; at least one seed"),
        ({"neighbours": 1, "seeds": []}, "1 more of the settings are wrong."),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(given, message):
    with pytest.raises(UsageError) as caught:
        Recipe.from_mapping(given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_help_shows_the_description_of_each_setting_and_a_plain_signature():
    class Asked(PublicSettings):
        """Settings of a test."""

        model: Annotated[str, Field(description="The model.")]
        seed: Annotated[int, Field(ge=0, description="Seed of all randomness.")] = 3

    assert str(inspect.signature(Asked)) == "(*, model, seed=3)"
    told = inspect.getdoc(Asked)
    assert told.startswith("Settings of a test.") and "    model: The model." in told and "seed: Seed of all" in told
    assert Asked(model="a").seed == 3


def test_a_missing_setting_is_named():
    class Needs(Settings):
        model: str

    with pytest.raises(UsageError, match=r"setting model is missing\. Give --model, or the same name"):
        Needs.from_mapping({})


def test_missing_settings_are_named_at_once():
    class NeedsTwo(Settings):
        model: str
        read_from: str
        share: float = 0.5

    told = r"settings model, read_from are missing\. Give --model and --read-from, .* 1 more of the settings are wrong"
    with pytest.raises(UsageError, match=told):
        NeedsTwo.from_mapping({"share": "x"})


def test_files_that_are_no_settings(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        Recipe.from_toml(tmp_path / "none.toml")
    (tmp_path / "s.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot read"):
        Recipe.from_toml(tmp_path / "s.toml")
    (tmp_path / "s.toml").write_text("neighbours = 3\nneighbours = 4\n")
    with pytest.raises(UsageError, match="line 2"):
        Recipe.from_toml(tmp_path / "s.toml")


def test_options_lie_over_the_file_and_none_is_no_option(tmp_path):
    (tmp_path / "s.toml").write_text("neighbours = 3\ntitle = 'a'\n")
    read = Recipe.read(tmp_path / "s.toml", {"neighbours": 5, "title": None, "exact": False})
    assert (read.neighbours, read.title, read.exact) == (5, "a", False)
    assert Recipe.read(None, {"limit": None}) == Recipe()


def test_merged_changes_what_is_not_none():
    recipe = Recipe(neighbours=3, metric=Metric(scale=2))
    changed = recipe.with_values(title="b", neighbours=None, limit=0.0)
    assert changed.model_dump() == recipe.model_dump() | {"title": "b", "limit": 0.0}
    with pytest.raises(UsageError, match="greater than or equal to 2"):
        recipe.with_values(neighbours=0)


def test_frozen():
    with pytest.raises(ValidationError):
        Recipe().neighbours = 4


def test_settings_are_not_read_from_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "settings.toml")
    with pytest.raises(InputError, match="not a regular file"):
        Metric.from_toml(tmp_path / "settings.toml")
