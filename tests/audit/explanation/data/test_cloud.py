"""Object stores. Oracle: the same files on disk, behind servers of others: moto for S3, gcp-storage-emulator for
Google's; Python's own for http, and for the few addresses of the Hugging Face hub that its client asks."""

import functools
import http.server
import importlib
import json
import os
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from klarsicht.audit.explanation.data import locations
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.cli.app import run
from klarsicht.ground.errors import CorpusError, MissingExtra


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (60, 80, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{i}.png")
    return tmp_path / "data"


def same(corpus, folder):
    files = open_corpus(folder)
    assert (corpus.keys, corpus.labels) == (files.keys, files.labels)
    assert corpus.hash == files.hash
    for row in range(len(files)):
        np.testing.assert_array_equal(np.asarray(corpus.decode(row)), np.asarray(files.decode(row)))


@pytest.mark.nightly
def test_s3(folder, monkeypatch):
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():  # fmt: skip
        monkeypatch.setitem(os.environ, name, value)
    try:
        import fsspec

        system = fsspec.filesystem("s3")
        system.mkdir("bucket")
        for file in folder.rglob("*.png"):
            system.pipe(f"bucket/set/{file.relative_to(folder)}", file.read_bytes())
        same(open_corpus("s3://bucket/set"), folder)
    finally:
        server.stop()


@pytest.mark.nightly
def test_google(folder, monkeypatch):
    pytest.importorskip("google.cloud.storage")
    # read at import: else it asks over gRPC, which the emulator does not speak, whether buckets know folders
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    pytest.importorskip("gcsfs")
    server = pytest.importorskip("gcp_storage_emulator.server").create_server("127.0.0.1", 0, True, "bucket")
    server.start()
    host, port = server._api._httpd.server_address[:2]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}:{port}")
    import fsspec

    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    try:
        system, _ = fsspec.core.url_to_fs("gs://bucket/set")
        for file in folder.rglob("*.png"):
            system.pipe(f"bucket/set/{file.relative_to(folder)}", file.read_bytes())
        same(open_corpus("gs://bucket/set"), folder)
        with pytest.raises(CorpusError, match="gs://bucket/none"):
            open_corpus("gs://bucket/none")
    finally:
        locations._file_system.cache_clear()
        server.stop()


class Hub(http.server.BaseHTTPRequestHandler):
    """Addresses of a hub that its client asks to read one data set: the revision, a tree of files, bytes of a file."""

    folder: Path
    asked: list[str]

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        address = urlsplit(self.path)
        path = unquote(address.path)
        self.asked.append(path)
        api, files = "/api/datasets/someone/set", "/datasets/someone/set/resolve/main/"
        if path in (api, f"{api}/revision/main"):
            return self.answer(json.dumps({"id": "someone/set", "sha": "0" * 40}).encode())
        if path == f"{api}/tree/main" or path.startswith(f"{api}/tree/main/"):
            below = self.folder / path.removeprefix(f"{api}/tree/main").strip("/")
            every = parse_qs(address.query).get("recursive", ["false"])[0].lower() == "true"
            if below.is_dir():
                found = sorted(below.rglob("*") if every else below.iterdir())
                return self.answer(json.dumps([self.entry(one) for one in found]).encode())
        if path.startswith(files) and (file := self.folder / path.removeprefix(files)).is_file():
            return self.answer(file.read_bytes())
        self.send_response(404)
        self.send_header("X-Error-Code", "EntryNotFound" if "someone/set" in path else "RepoNotFound")
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def entry(self, path):
        name, oid = path.relative_to(self.folder).as_posix(), "1" * 40
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": oid, "size": 0}
        return {"type": "file", "path": name, "oid": oid, "size": path.stat().st_size}

    def answer(self, content):
        whole, status = len(content), 200
        if asked := self.headers.get("Range"):
            start, _, end = asked.removeprefix("bytes=").partition("-")
            content, status = content[int(start) : int(end) + 1 if end else whole], 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{int(start) + len(content) - 1}/{whole}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub(folder, monkeypatch):
    """A hub at a port of this machine, with the folder as the data set someone/set; the paths that it was asked for."""
    pytest.importorskip("huggingface_hub")
    import fsspec

    handler = type("HubOfFolder", (Hub,), {"folder": folder, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = {"endpoint": f"http://127.0.0.1:{server.server_port}", "token": False}
        monkeypatch.setitem(fsspec.config.conf, "hf", address)
        yield handler.asked
        server.shutdown()
    locations._file_system.cache_clear()


def test_hub(folder, hub):
    same(open_corpus("hf://datasets/someone/set"), folder)
    assert any(path.startswith("/datasets/someone/set/resolve/main/a/") for path in hub)
    with pytest.raises(CorpusError, match="hf://datasets/someone/other"):
        open_corpus("hf://datasets/someone/other")


@pytest.mark.parametrize(
    ("url", "package"),
    [("s3://bucket/set", "s3fs"), ("gs://bucket/set", "gcsfs"), ("hf://datasets/a/b", "hugging")],
)
def test_a_missing_package_is_named(url, package, monkeypatch, capsys):
    """A machine without it: its import fails, as it does where nothing is installed."""
    registered = importlib.import_module("fsspec.registry")._registry
    for name in url.partition("://")[0], "gs", "gcs":
        monkeypatch.delitem(registered, name, raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("s3fs", "gcsfs", "huggingface_hub")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("s3fs", "gcsfs", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=package) as told:
        open_corpus(url)
    assert "'.[cloud]'" in told.value.remedy
    assert run(["audit", "run", "--model", "tests.audit.conftest:network", "--data", url]) == told.value.exit_code
    assert package in capsys.readouterr().err


class Ranges(http.server.SimpleHTTPRequestHandler):
    """The handler of the standard library, which answers no ranges: fsspec then reads the whole file."""

    def log_message(self, *_):
        pass


@pytest.mark.nightly
def test_http(folder):
    pytest.importorskip("aiohttp")
    handler = functools.partial(Ranges, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        files = open_corpus(folder)
        lines = [f"data/{key},{label}" for key, label in zip(files.keys, files.labels, strict=True)]
        (folder.parent / "all.csv").write_text("\n".join(["path,label", *lines]))
        corpus = open_corpus(f"{url}/all.csv")
        assert [corpus.reader.fingerprint(path) for path in corpus.paths] == [
            files.reader.fingerprint(path) for path in files.paths
        ]
        for row in range(len(files)):
            np.testing.assert_array_equal(np.asarray(corpus.decode(row)), np.asarray(files.decode(row)))
        server.shutdown()
