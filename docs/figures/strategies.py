"""Draws docs/figures/strategies-*.png: three questions of photographers, answered by kernels of the shipped network.

    python docs/figures/strategies.py

The bursts are synthetic: eight noisy frames of scikit-image's photograph of a cup of coffee (CC0), hand-held. In the
second and third picture an ellipse of its photograph of an astronaut (NASA, public domain) moves in front of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from klarsicht import bridge, burst
from klarsicht.bridge.measured_burst import show_light
from klarsicht.burst.data.burst import Burst
from klarsicht.burst.synthesis import motion, scenes
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.ground.pictures.colour_maps import sequential_colours
from klarsicht.numerics.imaging.sensor_noise import noise_level

GEOMETRY, FRAMES, LEVEL, SEED = Geometry(scale=1, height=256, width=400, reach=16), 8, noise_level(2), 5
HEAD, GAP, COLOURS = 22, 8, 160  # pixels of titles and gaps; colours of a file


def shots(moves: bool) -> tuple[Burst, NDArray[np.float32]]:
    """A burst and its truth; with an object that moves, or without."""
    rng = np.random.default_rng(SEED)
    height, width = GEOMETRY.crop
    scene = np.ascontiguousarray(scenes.rgb_light(data.coffee())[:, 60 : 60 + height, 80 : 80 + width])
    other = scenes.rgb_light(data.astronaut())[:, 0:200, 120:330]
    path = motion.shaken_camera(rng, FRAMES, GEOMETRY)
    movers = (motion.draw_mover(rng, other, FRAMES, GEOMETRY, motion.always_visible(rng, FRAMES)),) if moves else ()
    clean = np.stack([
        motion.render_frame(motion.composite_movers(scene, movers, i), path, i, GEOMETRY) for i in range(FRAMES)
    ])  # fmt: skip
    return Burst(LEVEL.sample(clean, rng), LEVEL), clean[0]


def sheet(panels: dict[str, NDArray[np.uint8]]) -> Image.Image:
    """Pictures in a row under their titles."""
    width = sum(one.shape[1] for one in panels.values()) + GAP * (len(panels) - 1)
    canvas = Image.new("RGB", (width, HEAD + max(one.shape[0] for one in panels.values())), "white")
    pen, font, x = ImageDraw.Draw(canvas), ImageFont.load_default(14), 0
    for title, picture in panels.items():
        pen.text((x, HEAD - 6), title, "black", font, anchor="ls")
        canvas.paste(Image.fromarray(np.ascontiguousarray(picture)), (x, HEAD))
        x += picture.shape[1] + GAP
    return canvas.quantize(COLOURS)


def double(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge a picture as the maps are."""
    return picture.repeat(2, 0).repeat(2, 1)


if __name__ == "__main__":
    here, network = Path(__file__).parent, burst.load_network("swift")
    still, truth = shots(moves=False)
    found = bridge.audit_denoiser(network, [still], truths=[truth])
    print(found.rows, found.lines, sep="\n")
    sheet({"one frame": double(show_light(still.reference)), "strategies": found.draw(0)}).save(
        here / "strategies-detail.png"
    )
    moved, truth = shots(moves=True)
    found = bridge.audit_denoiser(network, [moved], truths=[truth])
    print(found.rows, found.lines, sep="\n")
    sheet({
        "the reference": double(show_light(moved.reference)), "the last frame": double(show_light(moved.frames[-1])),
        "strategies": found.draw(0),
    }).save(here / "strategies-moved.png")  # fmt: skip
    error = sequential_colours(found.bursts[0].error, 0, float(np.quantile(found.bursts[0].error, 0.995)))
    sheet({
        "error (bright: large)": error.repeat(8, 0).repeat(8, 1), "strategies": found.draw(0),
    }).save(here / "strategies-error.png")  # fmt: skip
