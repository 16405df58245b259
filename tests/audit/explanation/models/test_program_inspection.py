"""Attacks by .pt2 files. Oracle: torch.export itself, which runs what each file brings along."""

import io
import json
import logging
import os
import pickle
import sys
import warnings
import zipfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.cli.app import run
from klarsicht.ground.errors import ModelError, UntrustedCode
from klarsicht.ground.trust import trusted_code

PROGRAM, CONSTANTS, WEIGHTS = (
    "models/model.json", "data/constants/model_constants_config.json", "data/weights/model_weights_config.json",
)  # fmt: skip


class Touch:
    """Pickle that makes a folder when it is read."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return partial(os.makedirs, exist_ok=True), (str(self.folder),)


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A sound program, as torch.export.save writes it, and its records by their path inside it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    path = tmp_path_factory.mktemp("plain") / "net.pt2"
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.export.export(net, (torch.zeros(2, 3, 12, 12),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    with zipfile.ZipFile(path) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    return path, records, program


def edited(content, change):
    tree = json.loads(content)
    change(tree)
    return json.dumps(tree).encode()


def in_sample_inputs(records, mark):
    return {"data/sample_inputs/model.pt": saved(((Touch(mark),), {}))}


def in_weights(records, mark):
    def change(tree):
        tree["config"]["0.weight"]["use_pickle"] = True

    return {"data/weights/weight_0": saved(Touch(mark)), WEIGHTS: edited(records[WEIGHTS], change)}


def in_an_opaque_constant(records, mark):
    payload = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": {
        "dtype": 7, "sizes": [], "requires_grad": False, "device": {"type": "cpu", "index": None}, "strides": [],
        "storage_offset": {"as_int": 0}, "layout": 7,
    }}  # fmt: skip
    config = json.dumps({"config": {"x": payload | {"use_pickle": True}}}).encode()
    return {"data/constants/opaque_obj_0": pickle.dumps(Touch(mark)), CONSTANTS: config}


def in_weights_of_an_older_version(records, mark):
    return {"data/weights/model.pt": saved({"0.weight": Touch(mark)})}


def in_constants_of_an_older_version(records, mark):
    return {"data/constants/model.pt": saved({"x": Touch(mark)})}


def evil_size(mark):
    return {"as_expr": {"expr_str": f"__import__('os').makedirs('{mark}', exist_ok=True)", "hint": None}}


def in_a_size(records, mark):
    def change(tree):
        tree["graph_module"]["graph"]["tensor_values"]["relu"]["sizes"][0] = evil_size(mark)

    return {PROGRAM: edited(records[PROGRAM], change)}


def in_a_size_under_a_name_that_notes_have(records, mark):
    def change(tree):
        tree["graph_module"]["graph"]["tensor_values"]["metadata"]["sizes"][0] = evil_size(mark)

    return {PROGRAM: edited(records[PROGRAM].replace(b'"relu"', b'"metadata"'), change)}


def write_module(mark):
    """Write the module that a program brings along, into the first folder of imports."""
    code = f"import os\nos.makedirs({str(mark)!r}, exist_ok=True)\nmake = dict\n"
    (Path(sys.path[0]) / "brought_along.py").write_text(code)
    sys.modules.pop("brought_along", None)


def in_an_import(records, mark):
    write_module(mark)
    context = {"default_factory_module": "brought_along", "default_factory_name": "make", "dict_context": []}

    def change(tree):
        signature = tree["graph_module"]["module_call_graph"][0]["signature"]
        version, spec = json.loads(signature["in_spec"])
        spec["children_spec"][1] = {"type": "collections.defaultdict", "context": context, "children_spec": []}
        signature["in_spec"] = json.dumps([version, spec])

    return {PROGRAM: edited(records[PROGRAM], change)}


def in_an_enumeration(records, mark):
    write_module(mark)

    def change(tree):
        signature = tree["graph_module"]["module_call_graph"][0]["signature"]
        version, spec = json.loads(signature["in_spec"])
        spec["context"] = json.dumps({"\u005f_enum__": 1, "fqn": "brought_along:x", "name": "y"})
        signature["in_spec"] = json.dumps([version, spec])

    return {PROGRAM: edited(records[PROGRAM], change)}


ATTACKS = [
    in_sample_inputs, in_weights, in_an_opaque_constant, in_weights_of_an_older_version,
    in_constants_of_an_older_version, in_a_size, in_a_size_under_a_name_that_notes_have, in_an_import,
    in_an_enumeration,
]  # fmt: skip


def write(path, records, root="net/", more=()):
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that stands twice
        for name, content in (*records.items(), *more):
            archive.writestr(f"{root}{name}", content)
    return path


def run_by_torch(path):
    """Load and run a program as a script without klarsicht would."""
    with suppress(Exception):
        torch.export.load(path).module(check_guards=False)(torch.zeros(2, 3, 12, 12))


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.__name__ for attack in ATTACKS])
def test_what_torch_would_run_of_a_file_is_named_and_not_run(plain, tmp_path, monkeypatch, attack):
    monkeypatch.syspath_prepend(tmp_path)
    mark = tmp_path / "ran"
    path = write(tmp_path / "net.pt2", plain[1] | attack(plain[1], mark))
    with pytest.raises(UntrustedCode, match=r"net\.pt2, .*trusted_code"):
        load_model(path)
    assert not mark.exists()
    run_by_torch(path)
    assert mark.exists(), "the attack is none"


def test_with_trust_a_file_is_loaded_as_torch_loads_it(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(
        logging.getLogger("torch._export.serde.serialize"), "disabled", True
    )  # its message is no format
    mark = tmp_path / "ran"
    path = write(tmp_path / "net.pt2", plain[1] | in_sample_inputs(plain[1], mark))
    with trusted_code():
        classifier = load_model(path)
    assert mark.exists() and classifier.n_classes == 3
    with pytest.raises(UntrustedCode):
        load_model(path)


def test_a_sound_program_is_loaded_written_anew_as_well(plain, tmp_path):
    x = torch.rand(2, 3, 12, 12)
    expected = plain[2].module()(x)
    for path in (plain[0], write(tmp_path / "net.pt2", plain[1])):
        torch.testing.assert_close(load_model(path).logits(x), expected)


@pytest.mark.parametrize("evil_last", [True, False])
def test_of_two_records_of_one_name_the_one_that_torch_reads_counts(plain, tmp_path, evil_last):
    mark, name = tmp_path / "ran", "data/sample_inputs/model.pt"
    evil = in_sample_inputs(plain[1], mark)[name]
    one, other = (plain[1][name], evil) if evil_last else (evil, plain[1][name])
    path = write(tmp_path / "net.pt2", plain[1] | {name: one}, more=[(name, other)])
    try:
        load_model(path)
        refused = False
    except (UntrustedCode, ModelError):
        refused = True
    assert not mark.exists()
    run_by_torch(path)
    assert refused or not mark.exists()


@pytest.mark.parametrize(
    ("record", "what"),
    [
        ("data/aotinductor/model/library.so", "a record that programs"),
        ("data/constants/custom_obj_0", "a record that programs"),
        ("models/other.txt", "a record that programs"),
        ("models/deep/other.json", "a record that programs"),
    ],
)
def test_records_that_no_plain_program_has_are_named(plain, tmp_path, record, what):
    path = write(tmp_path / "net.pt2", plain[1] | {record: b"{}"})
    with pytest.raises(UntrustedCode, match=rf"{record}: {what}"):
        load_model(path)


@pytest.mark.parametrize("name", ["x=print()", "x: print()", "x'", "a b", "x\n", "é", "x)"])
@pytest.mark.parametrize("place", [b'"relu"', b'"input"'])
def test_names_that_could_be_code_are_named(plain, tmp_path, place, name):
    """Torch writes names into the code of `forward`."""
    program = plain[1][PROGRAM].replace(place, json.dumps(name).encode())
    with pytest.raises(UntrustedCode, match="the name "):
        load_model(write(tmp_path / "net.pt2", plain[1] | {PROGRAM: program}))


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os')", "eval('1')", "Symbol('x').args", "().__class__", "s0.real", "open", "[1]", "{1}", "s0;1",
        "lambda: 1", 'Symbol("x")', "Symbol('x y')", "exec", "S('1')", "1" * 60 + "x", "\\x41", "f'{1}'",
    ],
)  # fmt: skip
def test_expressions_that_are_no_formula_of_sizes_are_named(plain, tmp_path, expression):
    def change(tree):
        tree["graph_module"]["graph"]["tensor_values"]["relu"]["sizes"][0] = {"as_expr": {"expr_str": expression}}

    with pytest.raises(UntrustedCode, match="the expression"):
        load_model(write(tmp_path / "net.pt2", plain[1] | {PROGRAM: edited(plain[1][PROGRAM], change)}))


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.makedirs",
        "torch.ops.aten.relu.__class__",
        "torch.ops.load_library",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "_operator.call",
    ],
)
def test_operators_that_open_files_or_call_are_named(plain, tmp_path, target):
    program = plain[1][PROGRAM].replace(b"torch.ops.aten.relu.default", target.encode())
    with pytest.raises(UntrustedCode, match=rf"the operator '{target}'"):
        load_model(write(tmp_path / "net.pt2", plain[1] | {PROGRAM: program}))


@pytest.mark.parametrize("is_evil", [False, True])
def test_files_of_torch_2_7_are_inspected_too(plain, tmp_path, is_evil):
    """Written as torch 2.7 did: records at the top, weights in a pickle."""
    from torch._export.serde.schema import SCHEMA_VERSION
    from torch._export.serde.serialize import serialize

    mark = tmp_path / "ran"
    artifact = serialize(plain[2])
    records = {
        "version": ".".join(map(str, SCHEMA_VERSION)),
        "serialized_exported_program.json": artifact.exported_program,
        "serialized_state_dict.pt": artifact.state_dict,
        "serialized_constants.pt": artifact.constants,
        "serialized_example_inputs.pt": saved(((Touch(mark),), {})) if is_evil else artifact.example_inputs,
    }
    path = write(tmp_path / "net.pt2", records, root="")
    if is_evil:
        with pytest.raises(UntrustedCode, match=r"serialized_example_inputs\.pt: a pickle of more than tensors"):
            load_model(path)
        assert not mark.exists()
        run_by_torch(path)
        assert mark.exists()
    else:
        x = torch.rand(2, 3, 12, 12)
        torch.testing.assert_close(load_model(path).logits(x), plain[2].module()(x))


def test_a_file_that_both_readers_open_is_inspected_as_both_read_it(plain, tmp_path):
    """Torch falls back to the older form where the newer fails; the newer here has a sound program."""
    mark = tmp_path / "ran"
    path = write(tmp_path / "net.pt2", plain[1])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_example_inputs.pt", saved(((Touch(mark),), {})))
    with pytest.raises(UntrustedCode):
        load_model(path)
    assert not mark.exists()


@pytest.mark.parametrize("words", [["run", "--out", "run"], ["doctor"], ["doctor", "--cost"]])
def test_commands_name_it_in_one_line(plain, tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    mark = tmp_path / "ran"
    write(tmp_path / "net.pt2", plain[1] | in_sample_inputs(plain[1], mark))
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "x.npy").write_bytes(b"")
    assert run(["audit", *words, "--model", "net.pt2", "--data", "data"]) == 4
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "data/sample_inputs/model.pt: a pickle of more than tensors" in told
    assert not mark.exists() and not (tmp_path / "run").exists()


def test_plant_names_it_too(plain, tmp_path, capsys):
    mark = tmp_path / "ran"
    path = write(tmp_path / "net.pt2", plain[1] | in_sample_inputs(plain[1], mark))
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "x.npy").write_bytes(b"")
    words = [str(tmp_path / "data"), "--out", str(tmp_path / "new"), "--kind", "tag", "--model", str(path)]
    assert run(["audit", "plant", *words]) == 4
    assert not mark.exists() and "--trust" in capsys.readouterr().err
