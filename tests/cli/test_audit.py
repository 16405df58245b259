"""The command line in process, with a few real subprocesses: what is printed, exit codes, speed of --help."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.audit.conftest import write_corpus

from klarsicht.cli.app import run
from klarsicht.cli.audit import note_left_out
from klarsicht.ground.run_folder.store import RunStore

ROOT = Path(__file__).parents[2]
MODEL = "tests.audit.conftest:network"


@pytest.fixture
def finished(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    write_corpus(tmp_path / "data")
    out = tmp_path / "run"
    assert run(["audit", "run", "--model", MODEL, "--data", str(tmp_path / "data"), "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_a_run_prints_its_ranking_and_where_the_report_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    write_corpus(tmp_path / "data")
    for name in ("a/notes.txt", "b/notes.txt", "list.pdf"):
        (tmp_path / "data" / name).touch()
    out = tmp_path / "a run with spaces"
    assert run(["audit", "run", "--model", MODEL, "--data", str(tmp_path / "data"), "--out", str(out)]) == 0
    printed, notes = capsys.readouterr()
    assert printed.splitlines()[1].split()[:2] == ["1", "b"]
    assert "note: left out: 2 files, such as a/notes.txt: no image by its ending .txt\n" in notes
    assert "note: left out: list.pdf: no image by its ending .pdf\n" in notes
    assert (out / "report.html").is_file()


@pytest.mark.slow
def test_rank_status_and_report_read_a_finished_run(finished, capsys):
    capsys.readouterr()
    assert run(["audit", "rank", str(finished), "--json"]) == 0
    order = json.loads(capsys.readouterr().out)
    assert order[0]["class"] == "b"
    assert {"class", "tau", "z", "members"} <= order[0].keys()
    assert all(Path(path).is_file() for path in order[0]["members"])
    assert run(["audit", "status", str(finished), "--json"]) == 0
    assert all(step["complete"] for step in json.loads(capsys.readouterr().out))
    assert run(["audit", "report", str(finished)]) == 0
    assert capsys.readouterr().out.strip() == str(finished / "report.html")


@pytest.mark.slow
def test_settings_come_from_a_file_and_options_override_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    write_corpus(tmp_path / "data")
    (tmp_path / "audit.toml").write_text(f'model = "{MODEL}"\ndata = "{tmp_path / "data"}"\nseed = 3\nunit = 50\n')
    out = tmp_path / "run"
    assert run(["audit", "run", "--settings", str(tmp_path / "audit.toml"), "--seed", "4", "--out", str(out)]) == 0
    saved = json.loads((out / "manifest.json").read_text())["settings"]
    assert (saved["seed"], saved["unit"]) == (4, 50)
    (tmp_path / "audit.toml").write_text("neigbours = 3\n")
    assert run(["audit", "run", "--settings", str(tmp_path / "audit.toml")]) == 2
    assert "neighbours" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["audit", "run", "--model", MODEL, "--data", "nowhere", "--out", "OUT"], 3, "nowhere"),
        (["audit", "run", "--data", "DATA", "--out", "OUT"], 2, "model"),
        (["audit", "run", "--model", "nonsense", "--data", "DATA", "--out", "OUT"], 2, "nonsense"),
        (["audit", "run", "--model", "no.such:thing", "--data", "DATA", "--out", "OUT"], 4, "no.such"),
        (["audit", "run", "--model", MODEL, "--data", "DATA", "--out", "OUT", "--metric", "euclid"], 2, "euclidean"),
        (["audit", "run", "--model", MODEL, "--data", "DATA", "--out", "DATA"], 5, "holds no run"),
        (["audit", "rank", "OUT"], 3, "no run"),
        (["audit", "rnak"], 2, "rnak"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(tmp_path, monkeypatch, capsys, arguments, code, told):
    monkeypatch.chdir(ROOT)
    write_corpus(tmp_path / "data", per_class=2, share=0)
    places = {"DATA": str(tmp_path / "data"), "OUT": str(tmp_path / "out")}
    assert run([places.get(word, word) for word in arguments]) == code
    printed = capsys.readouterr().err.strip()
    assert told in printed
    assert len(printed.splitlines()) == 1


@pytest.mark.parametrize("error", [SystemExit(0), RuntimeError("CUDA error: an illegal memory access was encountered")])
def test_foreign_code_that_ends_a_command_is_one_line_whoever_called_it(monkeypatch, capsys, error):
    """As in a backward pass or a hook, where no error of ours stands for it."""

    def ends(*_):
        raise error

    monkeypatch.setattr("klarsicht.cli.audit_verdicts.require_run_with_model", ends)
    assert run(["audit", "quantify", "run"]) == 12
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("klarsicht: ") and type(error).__name__ in told and "test_audit.py, line" in told


def test_a_function_without_a_rule_is_named_with_a_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recurrent.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.scan = torch.nn.LSTM(3, 3, batch_first=True)\n"
        "        self.head = torch.nn.Linear(3, 2)\n"
        "    def forward(self, x):\n"
        "        t = x.flatten(2).transpose(1, 2)\n"
        "        return self.head(self.scan(t)[0].mean(1))\n"
    )
    (tmp_path / "data" / "0").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "data" / "0" / "x.png")
    assert run(["audit", "run", "--model", "recurrent:Net", "--data", "data", "--out", "run"]) == 4
    told = capsys.readouterr().err
    assert "scan" in told
    assert "head relevance" in told


def test_help_answers_in_half_a_second_without_torch():
    code = "import sys; from klarsicht.cli.app import run; run(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
    began = os.times()
    subprocess.run([sys.executable, "-m", "klarsicht", "--help"], capture_output=True, check=True)
    ended = os.times()  # processor time: elapsed time is that of everything else on the machine
    assert ended.children_user + ended.children_system - began.children_user - began.children_system < 1.0


@pytest.mark.slow
def test_what_names_alone_show_to_be_wrong_is_said_without_torch(tmp_path):
    """Torch is what takes seconds; the expected codes are those of docs/exit-codes.md."""
    (tmp_path / "data" / "a").mkdir(parents=True)
    model = f"torchvision:resnet18@{tmp_path}/data"
    Path(tmp_path / "weights.pt").write_bytes(b"x")
    here = ["--model", f"torchvision:resnet18@{tmp_path}/weights.pt", "--data", str(tmp_path / "data")]
    of_python = RunStore.create(tmp_path / "run", settings={"model": "mine"}, identity={}).path
    own, of_a_model = [str(of_python)], [["quantify"], ["clean"], ["shortcuts"], ["content"], ["power"], ["stability"]]
    cases = [
        (2, ["run", "--nonsense"]),
        (2, ["run", "--data", "x"]),
        (3, ["run", "--model", "m:f", "--data", str(tmp_path / "nowhere")]),
        (2, ["run", "--model", "nonsense", "--data", str(tmp_path)]),
        (4, ["run", "--model", model, "--data", str(tmp_path)]),
        (4, ["doctor", "--model", f"{tmp_path}/none.pt2", "--data", str(tmp_path)]),
        (4, ["doctor", "--model", f"hf:{tmp_path}", "--data", str(tmp_path)]),
        (4, ["doctor", "--model", f"{tmp_path}/none.py:f", "--data", str(tmp_path)]),
        (2, ["run", *here, "--metric", "none"]),
        (2, ["run", *here, "--method", "none"]),
        (5, ["run", *here, "--out", str(tmp_path)]),
        (5, ["run", *here, "--out", str(tmp_path / "weights.pt" / "run")]),
        (2, ["clean", str(tmp_path), "--method", "none"]),
        *((3, [name, str(tmp_path)]) for name in ("quantify", "clean", "report", "rank", "shortcuts", "power")),
        (3, ["clean-data", str(tmp_path), "--out", str(tmp_path / "new")]),
        (3, ["evaluate", str(tmp_path), "--correction", str(tmp_path)]),
        (3, ["check", str(tmp_path), "--run", str(tmp_path)]),
        (2, ["check", str(tmp_path), "--run", *own]),
        *((2, [*words, *own]) for words in of_a_model),
        (3, ["plant", str(tmp_path / "nowhere"), "--out", str(tmp_path / "new"), "--kind", "tag"]),
    ]
    code = (
        "import json, sys; from klarsicht.cli.app import run\n"
        "codes = [run(['audit', *words]) for words in json.loads(sys.argv[1])]\n"
        "print(json.dumps({'codes': codes, 'torch': 'torch' in sys.modules, 'scipy': 'scipy.stats' in sys.modules}))"
    )
    words = json.dumps([words for _, words in cases])
    done = subprocess.run([sys.executable, "-c", code, words], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"codes": [code for code, _ in cases], "torch": False, "scipy": False}
    assert len(done.stderr.splitlines()) == len(cases)
    assert not (tmp_path / "new").exists()


def test_the_version_is_printed(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("klarsicht ")


def test_ctrl_c_says_that_the_run_can_be_resumed(monkeypatch, capsys):
    from klarsicht.ground.run_folder.store import RunStore

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(RunStore, "open", interrupted)
    assert run(["audit", "quantify", "anywhere"]) == 130
    assert "resumes" in capsys.readouterr().err


def test_of_many_kinds_of_files_left_out_a_few_are_said_and_the_others_counted(capsys):
    note_left_out([(f"{i} files", "no image") for i in range(12)])
    lines = capsys.readouterr().err.splitlines()
    assert lines == [*(f"note: left out: {i} files: no image" for i in range(5)),
                     "note: left out: 7 more, which the report lists"]  # fmt: skip
