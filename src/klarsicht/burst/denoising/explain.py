"""Explanation of a denoised picture: maps of its weights as pictures and arrays, in a folder.

arrays.npz   share (n, h, w), averaged, reach (h, w), size (S, h, w), trust (H, W), frames, sizes; maps are of every
             eighth pixel (of a mosaic's planes), as stored
share-NAME.png (by `name_files`), averaged.png, reach.png, size-K.png, alone.png, page.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising import comparison_page, work_folder
from klarsicht.burst.denoising.pipeline import DenoiseResult, DenoiseSettings, denoise_frames
from klarsicht.burst.files import reading
from klarsicht.burst.files.rendering import Renderer
from klarsicht.burst.merging.filters import NetworkFilter, split_groups
from klarsicht.burst.merging.kernel_maps import MAP_STEP
from klarsicht.ground.machine.disk import replace_atomically, write_atomically
from klarsicht.ground.pictures.array_images import turn_upright
from klarsicht.ground.pictures.colour_maps import sequential_colours
from klarsicht.ground.pictures.encoded_pictures import png_bytes

ALONE = 0.9  # share of |weight| from which one frame dominates
MIDDLE_QUANTILE, TOP_QUANTILE = 0.5, 0.995  # quantiles that are reported, and that end a map's colour scale

Numbers = npt.NDArray[Any]


def explain(frames: Sequence[Path], out: Path, settings: DenoiseSettings | None = None) -> Iterator[str]:
    """Denoise the frames, and write the folder `out` instead of the photograph; yield messages, raise as `denoise`."""
    files = reading.list_frames(frames)
    work_folder.check_outputs([out / "arrays.npz"], list(files), reading.select_folders(frames))
    with denoise_frames(files, out, settings or DenoiseSettings(), maps=True) as result:
        arrays = collect_maps(result)
        yield from result.lines
        yield from describe_maps(result, arrays)
        with replace_atomically(out / "arrays.npz") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        for name, picture in render_maps(arrays).items():
            upright = turn_upright(picture, result.burst.header.orientation)
            write_atomically(out / f"{name}.png", png_bytes(np.ascontiguousarray(upright)))
        comparison_page.write_page(out / "page.html", result, Renderer.from_header(result.spool, result.burst.header))
        yield f"explanation: {out}"


def collect_maps(result: DenoiseResult) -> dict[str, Numbers]:
    """Collect the arrays of arrays.npz."""
    assert result.maps is not None
    height, width = result.maps.size
    values = result.maps.read_window(0, Window(0, height, 0, width))
    group = split_groups(result.filter, len(result.frame_numbers))[0]
    n = len(group)
    H, W = result.spool.size
    trust = np.concatenate([light[-1] for _, light in result.spool.read_strips(0)])
    assert trust.shape == (H, W)
    return {
        "share": values[:n],
        "averaged": values[n],
        "reach": values[n + 1],
        "size": values[n + 2 :],
        "trust": trust,
        "frames": np.array([result.burst.frames[result.frame_numbers[k]].name for k in group]),
        "sizes": np.array(kernel_sizes(result)),
        "every": np.array(MAP_STEP),
    }


def kernel_sizes(result: DenoiseResult) -> tuple[int, ...]:
    """Return the kernel sizes of the filter; (1,) for the mean."""
    return result.filter.network.preset.spec.sizes if isinstance(result.filter, NetworkFilter) else (1,)


def describe_maps(result: DenoiseResult, arrays: dict[str, Numbers]) -> Iterator[str]:
    """Summarise the maps in words."""
    if len(result.frame_numbers) > len(arrays["frames"]):
        yield f"weights are those of the first {len(arrays['frames'])} frames, of {len(result.frame_numbers)} in groups"
    for name, share in zip(arrays["frames"], arrays["share"], strict=True):
        yield f"share of {name}: {share.mean():.1%}"
    averaged, reach = (float(np.quantile(arrays[name], MIDDLE_QUANTILE)) for name in ("averaged", "reach"))
    yield f"as little noise as the mean of {averaged:.1f} pixels (median); reach of the kernels {reach:.2f} pixels"
    energy = ", ".join(f"{K}: {part.mean():.1%}" for K, part in zip(arrays["sizes"], arrays["size"], strict=True))
    yield f"energy of kernel sizes, {energy}"
    alone = float(np.mean(arrays["share"].max(0) >= ALONE))
    yield f"one frame alone has {ALONE:.0%} of the weight in {alone:.1%} of the picture"


def name_files(frames: Iterable[str]) -> list[str]:
    """Name the files of frames: by the frame without its ending, folders joined by `-`; where these are alike, with the
    frame's place before, as in `2-photograph`."""
    names = [str(Path(str(frame)).with_suffix("")).replace("/", "-") for frame in frames]
    folded = [name.casefold() for name in names]
    alike = any(folded.count(name) > 1 for name in folded)
    return [f"{number}-{name}" if alike else name for number, name in enumerate(names, 1)]


def render_maps(arrays: dict[str, Numbers]) -> dict[str, npt.NDArray[np.uint8]]:
    """Render the maps as pictures (h, w, 3), by name; the shares of all frames have one colour scale."""
    top = float(np.quantile(arrays["share"], TOP_QUANTILE)) or 1.0
    images = {
        f"share-{name}": sequential_colours(share, 0, top)
        for name, share in zip(name_files(arrays["frames"]), arrays["share"], strict=True)
    }
    for name in ("averaged", "reach"):
        images[name] = sequential_colours(arrays[name], 0, float(np.quantile(arrays[name], TOP_QUANTILE)))
    images |= {f"size-{K}": sequential_colours(part) for K, part in zip(arrays["sizes"], arrays["size"], strict=True)}
    return images | {"alone": sequential_colours(arrays["share"].max(0) >= ALONE)}
