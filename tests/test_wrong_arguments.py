"""Wrong arguments of the public names: whatever is given, the answer is one line of ours that names the argument."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.audit.conftest import network
from tests.marks import slow_but_first

from klarsicht import audit, bridge, burst
from klarsicht.burst.training.training import TrainSettings
from klarsicht.explorer.explored_run import open_explored_run
from klarsicht.explorer.export import export_run
from klarsicht.explorer.serve import listen, serve_run
from klarsicht.ground.errors import KlarsichtError, UsageError

BATCH, MAPS = torch.rand(2, 3, 12, 12), np.random.default_rng(0).random((24, 8, 8))
PAIR = [(np.zeros((4, 4, 3), np.uint8), 0), (np.zeros((4, 4, 3), np.uint8), 1)]
LEVEL = burst.NoiseLevel(0.01, 0.002)
FRAMES = np.full((3, 1, 32, 32), 0.3, np.float32)


class Odd:
    """An object of no kind that any function takes."""


NOTHING_OF_IT = (5, math.nan, b"x", {"a": 1}, Odd())
TOO_LONG, NO_NAME = "a" * 5000, "\ud800"
PATHS = (*NOTHING_OF_IT, ("a",), "a\0b", Path("a\0b"), TOO_LONG, NO_NAME)
TEXTS = (*NOTHING_OF_IT, ("a",), Path("a"))
MEMBERS = (*NOTHING_OF_IT, "a\0b", Path("a\0b"), TOO_LONG, [None], [math.nan])
NUMBERS = (math.nan, math.inf, "5", (5,), Odd(), True, np.zeros(2))
INTEGERS = (*NUMBERS, 2.5)
FLAGS = (None, 0, "yes", math.nan, Odd())
TEXT_LISTS = (5, math.nan, "abc", b"abc", {"a": 1}, {"a"}, Odd(), [None], [("a",)], [math.nan], [5])
PATH_LISTS = (5, math.nan, b"abc", {"a": 1}, Odd(), [None], [("a",)], [math.nan], ["a\0b"])
NO_CLASS = (5, "model", math.nan, {}, (), Odd())
NO_FUNCTION = (5, "model", math.nan, Odd())
NUMBER_LISTS = (5, "abc", {0.1}, [None], ["a"], [math.nan])

WRONG = {
    "above": NUMBERS, "accept_labels": FLAGS, "affected": NUMBERS, "author": TEXTS,
    "balance": (*NUMBER_LISTS, (1.0, 1.0)),
    "bursts": PATH_LISTS, "painter": NO_CLASS, "points": INTEGERS, "truths": (5, math.nan, b"abc", {"a": 1}, Odd()),
    "browser": FLAGS, "host": TEXTS, "port": INTEGERS, "tell": NO_FUNCTION, "token": FLAGS, "black": NUMBERS,
    "decode": TEXTS, "path_column": TEXTS, "label_column": TEXTS, "source_column": TEXTS, "max_skipped": NUMBERS,
    "black_level": ("a", None, Odd(), ["a"]), "burst": NO_CLASS, "cells": NO_CLASS,
    "channels": INTEGERS, "checkpoint": PATHS, "classifier": (*NO_CLASS, network()), "cleaned": PATHS,
    "artifact": TEXTS, "colour_filter": TEXTS, "correction": PATHS, "decision": TEXTS,
    "decoder": TEXTS, "device": TEXTS, "draws": INTEGERS, "engine": TEXTS,
    "dry_run": FLAGS, "dtype": TEXTS, "exact": FLAGS, "files": PATH_LISTS, "folder": PATHS, "found_by": TEXTS,
    "frames": PATH_LISTS, "function": NO_FUNCTION, "ghost_map": PATHS, "groups": TEXTS, "images": INTEGERS,
    "kind": TEXTS, "kinds": TEXT_LISTS, "label": TEXTS, "layer": TEXTS, "level": NUMBERS, "map_side": INTEGERS,
    "mask": PATHS, "members": MEMBERS, "method": TEXTS, "metric": TEXTS, "middle": TEXTS, "n_dimensions": INTEGERS,
    "n_neighbors": INTEGERS, "names": TEXT_LISTS, "network": (*NO_CLASS, network()), "noise": NO_CLASS, "note": TEXTS,
    "observed": FLAGS, "out": PATHS, "overall": NUMBERS, "page": PATHS, "part": TEXT_LISTS, "parts": TEXT_LISTS,
    "pause": NUMBERS, "path": PATHS, "photographs": PATHS, "pictures": PATH_LISTS, "preset": TEXTS,
    "prevalences": NUMBER_LISTS, "preview": PATHS, "random_state": INTEGERS, "rate": NUMBERS, "reference": PATHS,
    "region": PATHS, "keep": FLAGS, "rules": NO_CLASS[:3], "run": PATHS, "sanity": FLAGS, "seed": INTEGERS,
    "settings": NO_CLASS,
    "shard": TEXTS, "share": NUMBERS, "since": PATHS,
    "shown": (5, "abc", [None], [0.5]), "spec": (None, 5, math.nan, Odd()),
    "tables": TEXTS, "test": TEXTS, "threads": INTEGERS, "to": TEXTS, "train": INTEGERS, "transform": NO_FUNCTION,
    "weight": NUMBERS, "white": NUMBERS, "white_level": NUMBERS, "workers": INTEGERS,
}  # fmt: skip
"""Values of another kind than an argument's, by its name."""
OWN = {  # where a name means another kind
    ("clean_data", "name"): (5, math.nan, b"x", {"a"}, [None], [math.nan], Odd()), ("clean", "name"): TEXTS,
    ("find_content", "classes"): TEXT_LISTS,
    ("decide", "name"): TEXTS,
    ("power", "classes"): INTEGERS, ("load_model", "classes"): TEXT_LISTS, ("open_corpus", "classes"): TEXT_LISTS,
    ("export_run", "classes"): TEXT_LISTS, ("export_run", "data"): TEXTS, ("open_explored_run", "data"): TEXTS,
    ("serve_run", "data"): TEXTS,
    ("clean_data", "action"): NO_FUNCTION[:1], ("open_corpus", "names"): NO_CLASS,
    ("load_model", "device"): NO_CLASS[:1],
}  # fmt: skip
ARRAYS = {
    "against",
    "balanced",
    "batch",
    "corpus",
    "data",
    "items",
    "labels",
    "logits",
    "maps",
    "own",
    "sources",
    "targets",
    "valid",
}  # arrays, or anything: their own cases stand below
ELSEWHERE = {
    "AuditSettings",
    "DenoiseSettings",
    "NoiseLevel",
    "rules",
    "trusted_code",
    "StrategyMap",
    "TrainSettings",
}  # by pydantic, a class of its own, no arguments
ARRAYS_HERE = {
    ("explain", "images"),
    ("attribute", "model"),
    ("attribute", "inputs"),
    ("ExchangedParts", "pictures"),
    ("exchange_parts", "pictures"),
    ("Burst", "frames"),
}


def public_functions():
    named = {
        name: getattr(wing, name) for wing in (audit, burst, bridge) for name in wing.PUBLIC if name not in ELSEWHERE
    }
    return named | {"export_run": export_run, "open_explored_run": open_explored_run, "serve_run": serve_run}


CASES = [
    (name, function, argument)
    for name, function in public_functions().items()
    for argument in inspect.signature(function).parameters
    if (argument not in ARRAYS or (name, argument) in OWN) and (name, argument) not in ARRAYS_HERE
]


@pytest.mark.parametrize(("name", "function", "argument"), CASES, ids=[f"{name}-{of}" for name, _, of in CASES])
def test_a_value_of_another_kind_is_named_with_its_argument(name, function, argument):
    """Arguments before it are of their kind, and none is there: it is refused before anything is opened."""
    ours = usable()[name]
    assert ours.keys() == {
        of for of, one in inspect.signature(function).parameters.items() if one.default is inspect.Parameter.empty
    }
    for value in OWN.get((name, argument)) or WRONG[argument]:
        with pytest.raises(UsageError, match=rf"argument {argument}(\[0\])? (must be|is not a path)") as caught:
            function(**(ours | {argument: value}))
        assert "\n" not in str(caught.value)


def test_an_error_of_a_public_function_names_the_argument_and_not_the_option(tmp_path):
    with pytest.raises(KlarsichtError, match=r"Check the path of `data`\.$") as caught:
        audit.run(audit.AuditSettings(model="object", data=str(tmp_path / "no")), tmp_path / "run", classifier=model())
    assert caught.value.with_options.endswith("Check the path of --data.")
    with pytest.raises(UsageError, match=r"^setting data is missing\. Give `data`"):
        audit.AuditSettings(model="resnet18")


def usable():
    """Values of their kind for the arguments that have no default; of a run and files that do not exist."""
    run, here = {"run": "nowhere"}, Path("nowhere")
    model = audit.load_model(network(), classes=["a", "b", "c"])
    pictures = {"pictures": PAIR, "labels": [0, 1]}
    return {
        "ArrayTransform": {"function": len, "channels": 3, "dtype": "uint8"},
        "attribute": {"model": network(), "inputs": BATCH, "targets": [0, 1]},
        "ExchangedParts": pictures | {"parts": ["border"]}, "Explainer": {"classifier": model},
        "decide": run | {"name": "c", "decision": "artifact"},
        "diagnose": {"settings": audit.AuditSettings(model="x", data="y")},
        "check_pictures": run | {"pictures": [here]}, "clean": run | {"name": "c"}, "clean_classes": run,
        "clean_data": run | {"out": here}, "evaluate": run | {"folder": here}, "exchange_parts": run | pictures,
        "explain": {"classifier": model, "images": BATCH}, "find_content": run, "find_copies_in": {"data": "nowhere"},
        "find_duplicates": run, "load_correction": {"folder": here},
        "load_model": {"spec": network()}, "measure_sufficiency": run, "open_corpus": {"data": "nowhere"}, "power": run,
        "clean_surroundings": run, "evaluate_surroundings": run | {"folder": here}, "read_surroundings": run,
        "read_seen_groups": run, "read_sufficiency": run, "read_verdicts": run,
        "quantify": run, "rank": run, "run": {"settings": audit.AuditSettings(model="x", data="y"), "out": here},
        "screen": run, "spray": {"items": MAPS}, "training_weights": {"cleaned": here},
        "weighted_sampler": {"cleaned": here}, "Burst": {"frames": FRAMES, "noise": LEVEL},
        "denoise": {"frames": here, "out": "nowhere.tif"}, "load_network": {"path": here},
        "denoise_burst": {"network": burst.load_network("swift"), "burst": burst.Burst(FRAMES, LEVEL)},
        "train": {"settings": TrainSettings(steps=1), "photographs": here, "out": "nowhere.safetensors"},
        "audit_denoiser": {"network": burst.load_network("swift"), "bursts": [burst.Burst(FRAMES, LEVEL)]},
        "audit_bursts": {"bursts": [here], "out": here}, "denoise_corpus": run | {"out": here},
        "measure_stability": run,
        "export_run": run | {"to": "coco"}, "open_explored_run": run | {"author": "a"}, "serve_run": run,
    }  # fmt: skip


ANYTHING = (None, 5, -1, math.nan, "", "a\0b", TOO_LONG, NO_NAME, (), {}, [None], [("a",)], [math.nan], b"x", Odd(),
            np.zeros(0), np.full((1, 1, 1, 1), np.nan, np.float32), Path("nowhere"), print)  # fmt: skip


def model():
    return audit.load_model(network(), classes=["a", "b", "c"])


def explain_for(targets):
    with audit.Explainer(model()) as explainer:
        return explainer(BATCH, targets)


@pytest.mark.parametrize("value", ANYTHING, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "call",
    [
        lambda x: audit.open_corpus(x),
        lambda x: audit.open_corpus([(x, "a")]).decode(0),
        lambda x: audit.explain(model(), x, [0, 1]),
        lambda x: explain_for(x),
        lambda x: audit.spray(x, n_neighbors=5),
        lambda x: audit.ExchangedParts(x, [0, 1], ["border"]),
        lambda x: audit.ExchangedParts(PAIR, x, ["border"]),
        lambda x: burst.denoise_burst(burst.load_network("swift"), burst.Burst(x, LEVEL)),
        lambda x: audit.load_model(x),
        lambda x: audit.load_model((x, None)),
        lambda x: burst.NoiseLevel(x, -0.1),
        lambda x: audit.AuditSettings(model="x", data="y", metric=x),
        lambda x: audit.AuditSettings(model="x", data="y", batch=x, unit=-1),
    ],
    ids=["corpus", "picture", "batch", "targets", "items", "pictures", "labels", "frames", "spec", "module", "read",
         "metric", "batch size"],
)  # fmt: skip
def test_what_is_no_array_corpus_or_model_is_one_error(call, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KlarsichtError) as caught:
        call(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [*ANYTHING[1:3], *ANYTHING[4:]], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "call",
    [
        lambda x: audit.spray(MAPS, x, n_neighbors=5),
        lambda x: audit.spray(MAPS, n_neighbors=5, sources=x),
        lambda x: audit.ExchangedParts(PAIR, [0, 1], ["background"], maps=x),
        lambda x: audit.ExchangedParts(PAIR, [0, 1], ["surroundings"], own=x),
        lambda x: burst.Burst(FRAMES, LEVEL, [x, x, x, x]),
    ],
    ids=["logits", "sources", "maps", "own", "valid"],
)
def test_what_is_no_array_where_one_may_be_left_out_is_one_error(call, value):
    with pytest.raises(KlarsichtError) as caught:
        call(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", [("a",), math.nan, math.inf, b"a", ["a"], {"a": 1}, np.zeros(2), np.float32("nan")])
def test_a_label_or_source_that_is_no_name_is_refused(label):
    """As a text, each would be a class that nobody named: "nan", "('a',)"."""
    picture = PAIR[0][0]
    with pytest.raises(KlarsichtError, match="label of item 1 is not a name"):
        audit.open_corpus([(picture, "a"), (picture, label)])
    with pytest.raises(KlarsichtError, match="source of item 1 is not a name"):
        audit.open_corpus([(picture, "a", "s"), (picture, "b", label)])


def test_labels_that_are_texts_and_numbers_stay():
    labels = ["a", 1, 2.0, True, np.int64(3), np.float32(4), np.str_("b"), torch.tensor(5)]
    corpus = audit.open_corpus([(PAIR[0][0], label) for label in labels])
    assert list(corpus.labels) == ["a", "1", "2.0", "True", "3", "4.0", "b", "5"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: audit.load_model(network(), device="cuda:7"), "cannot be moved to the device; got cuda:7"),
        (lambda: audit.load_model(network(), device="nowhere"), "cannot be moved to the device; got nowhere"),
        (lambda: audit.Explainer(model(), seed=-1), "seed is out of range"),
        (lambda: audit.Explainer(model(), seed=10**30), "seed is out of range"),
        (lambda: audit.explain(model(), BATCH, [0.5, 1]), "targets are not integers"),
        (lambda: audit.explain(model(), BATCH, [0, 3]), "target class out of range"),
        (lambda: audit.explain(model(), BATCH, [0, 10**30]), "not classes"),
        (lambda: audit.explain(model(), BATCH, [0, 1], layer="nowhere"), "nowhere"),
        (lambda: audit.spray(MAPS, random_state=-1), "random_state is out of range"),
        (lambda: audit.spray(MAPS, n_neighbors=-1), "neighbours"),
        (lambda: audit.spray(MAPS, n_neighbors=5, n_dimensions=-1), "dimensions"),
        (lambda: audit.weighted_sampler("nowhere", draws=-1), "no draws"),
        (lambda: audit.weighted_sampler("nowhere", seed=-1), "seed is out of range"),
        (lambda: audit.ArrayTransform(len, 3, "uint8", 9, 5), "not a range"),
        (lambda: audit.ExchangedParts(PAIR, [0, 1], ["border"], share=0.0), "share is out of range"),
        (lambda: burst.load_network("nowhere"), "nowhere"),
        (lambda: burst.load_network("swift", "nowhere"), "another preset"),
        (lambda: burst.train(TrainSettings(steps=1), "nowhere", "a.safetensors"), "nowhere"),
        (lambda: burst.train(TrainSettings(steps=1), "nowhere", "a"), "its name ends in .safetensors"),
        (lambda: list(burst.denoise([], "a.tif")), "frame"),
        (lambda: list(burst.denoise("nowhere", "a.tif")), "nowhere"),
        (lambda: burst.Burst(FRAMES, LEVEL, colour_filter="nowhere"), "nowhere"),
        (lambda: burst.Burst(FRAMES[:0], LEVEL), "none of them 0"),
        (lambda: serve_run("nowhere", port=70_000), "port is out of range"),
        (lambda: serve_run("nowhere", port=-1), "port is out of range"),
        (lambda: listen("a\0b", 0), "cannot listen there"),
        (lambda: listen(TOO_LONG, 0), "cannot listen there"),
        (lambda: listen(NO_NAME, 0), "cannot listen there"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_one_error(call, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KlarsichtError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sides", [(1, 1), (1, 9), (9, 2)])
def test_a_burst_of_single_pixels_is_refused(sides):
    shots = burst.Burst(np.full((2, 1, *sides), 0.3, np.float32), LEVEL)
    with pytest.raises(KlarsichtError, match=rf"too small to align; got {sides[0]} x {sides[1]} pixels"):
        burst.denoise_burst(burst.load_network("swift"), shots)


@pytest.mark.parametrize("sides", slow_but_first([(3, 3), (4, 4), (9, 5), (3, 520)]))
def test_the_smallest_burst_that_is_not_refused_is_denoised(sides):
    shots = burst.Burst(np.full((2, 1, *sides), 0.3, np.float32), LEVEL)
    picture = burst.denoise_burst(burst.load_network("swift"), shots)
    assert picture.shape == (1, *sides) and np.isfinite(picture).all()
