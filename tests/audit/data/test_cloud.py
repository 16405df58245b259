"""Object stores. Oracle: the same files on disk, behind real servers: moto for S3, Python's own for http."""

import functools
import http.server
import os
import threading

import numpy as np
import pytest
from PIL import Image

from klarsicht.audit.data.corpus_formats import open_corpus

pytestmark = pytest.mark.nightly


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


class Ranges(http.server.SimpleHTTPRequestHandler):
    """The handler of the standard library, which answers no ranges: fsspec then reads the whole file."""

    def log_message(self, *_):
        pass


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
