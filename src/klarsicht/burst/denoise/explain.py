"""Why a burst became that picture: maps of its weights as pictures and arrays, in a folder.

arrays.npz   share (n, h, w), averaged, reach (h, w), size (S, h, w), trust (H, W), frames, sizes; maps are of every
             eighth pixel (of a mosaic's planes), as stored
share-NAME.png, averaged.png, reach.png, size-K.png, alone.png, page.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoise import comparison_page, work_folder
from klarsicht.burst.denoise.filters import NetworkFilter, in_groups
from klarsicht.burst.denoise.kernel_maps import EVERY
from klarsicht.burst.denoise.pipeline import Denoised, DenoiseSettings, denoised
from klarsicht.burst.files import reading
from klarsicht.burst.files.rendering import Renderer, turned
from klarsicht.ground.disk import replacing, write_atomically
from klarsicht.ground.images import png_bytes, sequential

ALONE = 0.9  # of |weight| on one frame: that one is trusted alone
MIDDLE, TOP = 0.5, 0.995  # quantiles that are told, and that a map's colours reach

Numbers = npt.NDArray[Any]


def explain(frames: Sequence[Path], out: Path, settings: DenoiseSettings | None = None) -> Iterator[str]:
    """Denoises the frames into nothing and writes the folder `out`; lines for people. Raises as `denoise` does."""
    files = reading.frames(frames)
    work_folder.refuse_inputs([out / "arrays.npz"], list(files), reading.folders(frames))
    with denoised(files, out, settings or DenoiseSettings(), maps=True) as found:
        arrays = maps(found)
        yield from found.lines
        yield from told(found, arrays)
        with replacing(out / "arrays.npz") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        for name, picture in pictures(arrays).items():
            upright = turned(picture, found.roll.header.orientation)
            write_atomically(out / f"{name}.png", png_bytes(np.ascontiguousarray(upright)))
        comparison_page.write(out / "page.html", found, Renderer.of(found.spool, found.roll.header))
        yield f"explanation: {out}"


def maps(found: Denoised) -> dict[str, Numbers]:
    """What arrays.npz holds."""
    assert found.maps is not None
    height, width = found.maps.size
    values = found.maps.window(0, Window(0, height, 0, width))
    group = in_groups(found.filter, len(found.used))[0]
    n = len(group)
    H, W = found.spool.size
    trust = np.concatenate([light[-1] for _, light in found.spool.strips(0)])
    assert trust.shape == (H, W)
    return {
        "share": values[:n],
        "averaged": values[n],
        "reach": values[n + 1],
        "size": values[n + 2 :],
        "trust": trust,
        "frames": np.array([found.roll.frames[found.used[k]].name for k in group]),
        "sizes": np.array(sizes_of(found)),
        "every": np.array(EVERY),
    }


def sizes_of(found: Denoised) -> tuple[int, ...]:
    return found.filter.network.preset.spec.sizes if isinstance(found.filter, NetworkFilter) else (1,)


def told(found: Denoised, arrays: dict[str, Numbers]) -> Iterator[str]:
    if len(found.used) > len(arrays["frames"]):
        yield f"weights are those of the first {len(arrays['frames'])} frames, of {len(found.used)} in groups"
    for name, share in zip(arrays["frames"], arrays["share"], strict=True):
        yield f"share of {name}: {share.mean():.1%}"
    averaged, reach = (float(np.quantile(arrays[name], MIDDLE)) for name in ("averaged", "reach"))
    yield f"as little noise as the mean of {averaged:.1f} pixels (median); reach of the kernels {reach:.2f} pixels"
    energy = ", ".join(f"{K}: {part.mean():.1%}" for K, part in zip(arrays["sizes"], arrays["size"], strict=True))
    yield f"energy of kernel sizes, {energy}"
    alone = float(np.mean(arrays["share"].max(0) >= ALONE))
    yield f"one frame alone has {ALONE:.0%} of the weight in {alone:.1%} of the picture"


def pictures(arrays: dict[str, Numbers]) -> dict[str, npt.NDArray[np.uint8]]:
    """(h, w, 3) by name; the shares of all frames in the same colours."""
    top = float(np.quantile(arrays["share"], TOP)) or 1.0
    drawn = {
        f"share-{Path(str(name)).stem}": sequential(share, 0, top)
        for name, share in zip(arrays["frames"], arrays["share"], strict=True)
    }
    for name in ("averaged", "reach"):
        drawn[name] = sequential(arrays[name], 0, float(np.quantile(arrays[name], TOP)))
    drawn |= {f"size-{K}": sequential(part) for K, part in zip(arrays["sizes"], arrays["size"], strict=True)}
    return drawn | {"alone": sequential(arrays["share"].max(0) >= ALONE)}
