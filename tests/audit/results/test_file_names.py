"""Folders of a machine in pages that are sent to others. Oracle: what a reader of the page sees."""

import json
from pathlib import Path

import pytest

from klarsicht.audit.results.file_names import leave_out_folders


def test_folders_of_corpus_model_and_settings_are_left_out():
    settings = {
        "model": "timm:resnet18@/srv/ann/weights/net.pt",
        "data": "/data/a & b",
        "class_map": "/srv/ann/map.csv",
    }
    page = '<a title="/data/a &amp; b/x/1.png">/data/a &amp; b</a> /srv/ann/weights/net.pt /srv/ann/map.csv 1/2 a/b'
    assert leave_out_folders(page, {"data": "/data/a & b", "settings": settings}) == (
        '<a title="x/1.png">a & b</a> net.pt map.csv 1/2 a/b'
    )
    url = {"data": "https://host/a/", "settings": {"model": "efficientnet-lite0", "data": "https://host/a/"}}
    assert leave_out_folders("https://host/a/1.png", url) == "https://host/a/1.png"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("/home/ada/nets/net.py:build", "net.py:build"),
        ("timm:resnet50@/home/ada/w.safetensors", "timm:resnet50@w.safetensors"),
        ("/home/ada/net.pt2", "net.pt2"),
    ],
)
def test_json_names_a_model_and_a_run_without_their_folders(model, said):
    page = json.dumps({"model": model, "folder": "/home/ada/rün", "picture": "/home/ada/rün/a.png"})
    manifest = {"data": "", "settings": {"model": model}}
    content = leave_out_folders(page, manifest, Path("/home/ada/rün"))
    assert json.loads(content) == {"model": said, "folder": "rün", "picture": "a.png"}


@pytest.mark.parametrize("place", [".", "", "photos"])
def test_a_place_relative_to_the_working_folder_takes_nothing_else_away(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = {"p": 0.95, "file": "cat.jpg", "data": place}
    content = leave_out_folders(json.dumps(shown), {"data": place, "settings": {"model": "m"}}, Path(place))
    assert json.loads(content) == shown
