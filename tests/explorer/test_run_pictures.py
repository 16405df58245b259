"""Pictures of images, with their relevance and the window or mask of an artifact."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from tests.explorer.made_run import EACH, SIDE, TAG, WINDOW
from tests.explorer.requests import ask, read_picture

from klarsicht.explorer.app import make_app
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.ground.pictures.seen_area import SeenArea
from klarsicht.ground.pictures.stored_images import load_decoder
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.trust import record_code


def test_pictures_are_those_of_the_files_and_of_the_stored_maps(app, whole_run):
    file = Image.open(RunStore.open(whole_run).table("corpus")["path"][0].as_py())
    drawn = read_picture(ask(app, "/api/images/0/picture?side=96"))
    wanted = np.asarray(file.resize((96, 96), Image.Resampling.NEAREST)).astype(int)
    assert drawn.shape == (96, 96, 3) and np.abs(drawn - wanted).mean() < 12  # JPEG
    relevance = read_picture(ask(app, "/api/images/0/picture?kind=relevance&side=64"))
    red = relevance[..., 0] - relevance[..., 2]
    assert np.argwhere(red > 50).min(0).tolist() == [16, 32]  # cell (2, 4) of 8 x 8, 8 pixels each
    overlay = read_picture(ask(app, "/api/images/0/picture?kind=overlay&side=96"))
    assert (overlay[28:34, 52:58, 0] - overlay[28:34, 52:58, 2]).mean() > 60
    window = read_picture(ask(app, "/api/images/0/picture?kind=window&side=96&target=0"))
    assert window[24, 60, 1] - window[24, 60, 0] > 30  # the upper edge of the outline
    mask = read_picture(ask(app, "/api/images/0/picture?kind=mask&target=0"))
    assert mask.shape == (SIDE, SIDE, 3)
    assert np.argwhere(mask[..., 0] > 0).min(0).tolist() == [WINDOW[0] * SIDE, WINDOW[1] * SIDE]
    assert (mask[..., 0] > 0).sum() == TAG**2


@pytest.mark.parametrize(
    "query", ["kind=mask&target=1", "kind=window&side=9", "kind=passwd", "kind=mask", "side=99999"]
)
def test_a_picture_that_there_is_not_is_refused(app, query):
    assert ask(app, f"/api/images/{EACH}/picture?{query}").status in (400, 422)
    assert ask(app, "/api/images/100000/picture").status == 400


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_padded_is_drawn_and_masked_where_pillow_pads_it(explored, turned):
    """A file of 24 x 48 pixels, and the square that ImageOps.pad makes of it."""
    explored.reader.store.update_manifest(seen=SeenArea("longer").to_json())
    greys = np.random.default_rng(1).integers(0, 255, (2 * SIDE // 8, SIDE // 8)).astype(np.uint8)
    pixels = np.kron(greys, np.ones((8, 8), np.uint8))  # in the blocks of JPEG
    picture = Image.fromarray(pixels.T if turned else pixels).convert("RGB")
    picture.save(explored.reader.images().file(0))
    padded = ImageOps.pad(picture, (2 * SIDE, 2 * SIDE))
    without_outline = explored.pictures.draw(0, "window", 2 * SIDE, target=1)  # class 1 has no window
    drawn = Image.open(io.BytesIO(without_outline))
    assert drawn.size == padded.size
    off = np.abs(np.asarray(drawn, float) - np.asarray(padded, float))
    assert off.max() <= 4  # the file is drawn as JPEG
    top, left, height, width = (round(2 * SIDE * share) for share in WINDOW)
    square = np.zeros((2 * SIDE, 2 * SIDE), bool)
    square[top : top + height, left : left + width] = True
    inside = square[SIDE // 2 : -SIDE // 2] if turned else square[:, SIDE // 2 : -SIDE // 2]
    np.testing.assert_array_equal(explored.masks.of_image(0, 0, picture.size, "window")[1], inside)


def test_a_masked_picture_is_dark_beyond_the_mask(explored):
    answer = ask(make_app(explored), f"/api/images/0/picture?kind=masked&target=0&source=relevance&side={SIDE}")
    drawn = np.asarray(Image.open(io.BytesIO(answer.content)).convert("L")).astype(int)
    file = np.asarray(Image.open(explored.reader.images().file(0)).convert("L")).astype(int)
    mask = explored.masks.of_image(0, 0, (SIDE, SIDE), "relevance")[1]
    far = ~np.asarray(Image.fromarray(mask).resize((SIDE, SIDE)))
    far[2:10, 8:20] = False
    assert drawn[far].mean() < 0.5 * file[far].mean()
    plain = ask(make_app(explored), f"/api/images/{EACH}/picture?kind=masked&target=1&side={SIDE}")
    assert plain.status == 200  # an image without a mask is shown as it is


BITS = (
    "import numpy as np\n\n\ndef read(path):\n"
    "    return np.unpackbits(np.fromfile(path, np.uint8)[1:]).reshape({side}, {side}) * np.uint8(200)\n"
)


def test_images_that_only_the_decoder_of_the_run_reads_are_shown(explored, tmp_path):
    """A format of this test: a byte, then a bit a pixel. The corpus names the file, not its content."""
    store = explored.reader.store
    (tmp_path / "bits.py").write_text(BITS.format(side=SIDE))
    bits = np.random.default_rng(2).integers(0, 2, (SIDE, SIDE)).astype(np.uint8)
    explored.reader.images().file(0).write_bytes(b"?" + np.packbits(bits).tobytes())
    refused = ask(make_app(explored), f"/api/images/0/picture?side={4 * SIDE}")
    assert refused.status == 404  # Pillow knows no such file
    decode = f"{tmp_path / 'bits.py'}:read"
    store.update_manifest(settings=store.manifest["settings"] | {"decode": decode}, code=record_code(decode))
    read = ExploredRun.of(store)
    drawn = read_picture(ask(make_app(read), f"/api/images/0/picture?side={4 * SIDE}"))
    wanted = np.kron(bits, np.ones((4, 4)))[..., None] * 200
    assert np.abs(drawn - wanted).mean() < 12  # JPEG
    assert read.pictures.failures == {} and read.pictures.decoder.find_fault() == ""
    (tmp_path / "bits.py").write_text("import none_such\n" + BITS)
    changed = ExploredRun.of(store)
    assert ask(make_app(changed), "/api/images/0/picture").status == 404
    assert "--trust" in changed.pictures.decoder.find_fault()
    (tmp_path / "bits.py").unlink()
    load_decoder.cache_clear()
    absent = ExploredRun.of(store)
    assert ask(make_app(absent), "/api/images/0/picture").status == 404
    assert "1 image cannot be shown" in absent.pictures.describe_failures()
    assert "no such file" in absent.pictures.describe_failures()
