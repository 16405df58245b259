"""Illustrations of the most suspect clusters: a scatter plot of the embedding, and images with relevance overlays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation
from torch import Tensor

from klarsicht.audit.explanation.data.corpus import Corpus, decode_rows
from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.relevance.attribution import IMAGES, STEP
from klarsicht.audit.explanation.relevance.explainer import Explainer
from klarsicht.audit.explanation.report.noted_classes import SMALL, SMALL_DRAWN, is_noted
from klarsicht.audit.explanation.report.rows import ViewRow
from klarsicht.audit.explanation.report.views import VIEWS, fit_to_square
from klarsicht.audit.explanation.settings import HEAD_RELEVANCE, AuditSettings
from klarsicht.audit.explanation.spectral.analysis import Analysis
from klarsicht.audit.results.ranking import Entry
from klarsicht.ground.errors import ImageError, InputRefused, ModelError, UnsupportedLayer
from klarsicht.ground.pictures.colour_maps import overlay
from klarsicht.ground.pictures.encoded_pictures import thumbnail
from klarsicht.ground.progress import track
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator

CLASSES_ILLUSTRATED = 6  # number of classes to illustrate
PICTURES = 10  # members of each cluster, and as many other images
GREEN, LINE = (0, 190, 90), 80  # outline of parts: colour, and side of the picture over the line width
SMALL_SIDE = 64  # pixels of the longer side of a small picture
LEAST_SIDE = 96  # pixels of the shorter side of a picture
MAX_POINTS = 600  # largest number of points of a scatter plot, since t-SNE of more is slow


@dataclass(frozen=True)
class Illustrator:
    """Illustrates the suspect clusters of a run in its folder. Only illustrated groups are embedded again, by the
    analyses of the run, and projected to two dimensions."""

    store: RunStore
    settings: AuditSettings
    corpus: Corpus
    classifier: Classifier
    analyses: Sequence[Analysis]

    def draw(self, entries: Sequence[Entry]) -> None:
        """Write the pictures and the table `views` of the first suspects, small pictures of the other noted classes,
        and the marker that lists the pictures."""
        self.store.discard_step(VIEWS)
        suspects = [entry for entry in entries if entry.rows]
        first = suspects[:CLASSES_ILLUSTRATED]
        beyond = suspects[CLASSES_ILLUSTRATED:] if self.store.has_array("maps") else []  # else each would be explained
        noted = [entry for entry in beyond if is_noted(entry)]
        drawings = [
            self._make_drawing(entry) if i < len(first) else self._small_drawing(entry)
            for i, entry in enumerate(track([*first, *noted], len(first) + len(noted), "pictures"))
        ]
        absorbed = [share for drawing in drawings for share in drawing.absorbed_shares.values() if np.isfinite(share)]
        if absorbed:
            self.store.update_manifest(absorbed=float(np.median(absorbed)))
        elif not self.store.has_array("maps"):
            self.store.update_manifest(overlay="plain: no method with rules for this network was asked for")
        rows = [row for drawing in drawings for row in drawing.rows_of_views(self.corpus.paths)]
        if rows:
            self.store.write_table(VIEWS, pa.Table.from_pylist(rows))
        written = [drawing.checksums for drawing in drawings]
        self.store.mark_done(VIEWS, 0, {name: one for files in written for name, one in files.items()})
        self.store.finish_step(VIEWS, 1)

    def _make_drawing(self, entry: Entry) -> Drawing:
        group = self._analysis(entry).group(entry.target)
        rng = generator(self.settings.seed, "pictures", entry.target)
        member = np.isin(group.rows, entry.rows)
        sides = (np.flatnonzero(member), np.flatnonzero(~member))
        pictured = np.concatenate([pick_at_random(side, PICTURES, rng) for side in sides])
        points = np.union1d(pictured, pick_at_random(np.arange(len(group)), MAX_POINTS, rng))
        absorbed, written = self._pictures(entry, group.rows[np.sort(pictured)])
        if self.settings.screens:
            written |= self._analysis(entry).write_embedding(group, entry.masks)
        layout = self._layout(entry, group, points)
        return Drawing(group.target, group.rows[points], member[points], layout, absorbed, written)

    def _small_drawing(self, entry: Entry) -> Drawing:
        """Draw small pictures of a few members, without an embedding."""
        rng = generator(self.settings.seed, "pictures", entry.target)
        rows = np.sort(pick_at_random(np.array(entry.rows), SMALL_DRAWN, rng))
        absorbed, written = self._pictures(entry, rows, small=True)
        nowhere = np.full((len(rows), 2), np.nan)
        return Drawing(entry.target, rows, np.ones(len(rows), bool), nowhere, absorbed, written, small=True)

    def _analysis(self, entry: Entry) -> Analysis:
        """Find the analysis that proposed the cluster."""
        by_parts = bool(entry.masks)
        return next(one for one in self.analyses if one.metric == entry.metric and one.by_parts == by_parts)

    def _layout(self, entry: Entry, group: Group, points: NDArray[Any]) -> NDArray[Any]:
        """Compute t-SNE of the spectral embedding, (n, 2) in units of the plot; with parts, of those in the cluster."""
        from sklearn.manifold import TSNE

        chosen = np.ones(len(group), np.int64)
        for row, numbers in entry.masks.items():
            chosen[np.searchsorted(group.rows, row)] = numbers[0]
        vectors = self._analysis(entry).vectors(group, chosen)[points]
        perplexity = min(30, (len(vectors) - 1) // 3)
        projection = TSNE(perplexity=perplexity, init="pca", random_state=self.settings.seed)
        return fit_to_square(projection.fit_transform(vectors))

    def _pictures(self, entry: Entry, rows: NDArray[Any], small: bool = False) -> tuple[dict[int, float], Written]:
        """Write each image with and without relevance, or a small picture of it with relevance; return the absorbed
        share of each illustrated row, and the checksums of the pictures."""
        absorbed, written = {}, Written()
        with self._maps(entry.target) as map_of:
            for row, picture in decode_rows(self.corpus, rows.tolist()):
                if not isinstance(picture, ImageError):
                    image = self.classifier.image(picture)
                    levels = self.classifier.picture(image)
                    relevance, absorbed[row] = map_of(row, image)
                    pixels = levels if relevance is None else overlay(levels, relevance)
                    if row in entry.masks:
                        pixels = outline_mask(pixels, np.isin(self.store.array("parts")[row], entry.masks[row]))
                    name = picture_name(entry.target, row)
                    if small:
                        written |= self.store.write_unit_file(f"{name}{SMALL}.jpg", encode_small(pixels))
                        continue
                    written |= self.store.write_unit_file(f"{name}.jpg", encode_jpeg(levels))
                    written |= self.store.write_unit_file(f"{name}-relevance.jpg", encode_jpeg(pixels))
        return absorbed, written

    @cached_property
    def _absorbed_shares(self) -> NDArray[np.float64]:
        """Absorbed share of every row of the run (N,), read once: it stands in as many files as the run has units."""
        return np.asarray(self.store.table(IMAGES, STEP, ["absorbed"])["absorbed"].to_numpy())

    @contextmanager
    def _maps(self, target: int) -> Iterator[Callable[[int, Tensor], tuple[NDArray[Any] | None, float]]]:
        """Open a function (row, image) -> (map, absorbed share), from stored maps or, without them, by explaining now.
        The map is None for a network without relevance rules, whose pictures have no overlay."""
        if self.store.has_array("maps"):
            maps = self.store.array("maps")
            yield lambda row, _: (np.asarray(maps[row], np.float32), float(self._absorbed_shares[row]))
            return
        with ExitStack() as stack:
            explain: Explainer | None = None
            with suppress(UnsupportedLayer):
                if self.settings.method != HEAD_RELEVANCE:
                    explain = stack.enter_context(Explainer(self.classifier, self.settings.method, map_side=64))

            def explained(_: int, image: Tensor, again: bool = False) -> tuple[NDArray[Any] | None, float]:
                try:
                    if explain is not None:
                        relevance = explain(image[None], torch.tensor([target]))
                        return relevance.maps[0], float(relevance.absorbed[0])
                except InputRefused:  # by the rules alone, or by a model that took the image before and fails now
                    if again:
                        raise
                    self.classifier.logits(image[None])
                    return explained(_, image, again=True)
                except ModelError:
                    pass
                return None, float("nan")

            yield explained


@dataclass(frozen=True)
class Drawing:
    """Illustration of one suspect cluster: n points of the scatter plot, with their rows of the run, whether they are
    members, and their positions (n, 2) in units of the plot; the absorbed share of relevance of each row with a
    picture; checksums of the pictures; and whether there is one small picture of each row."""

    target: int
    rows: NDArray[Any]
    member: NDArray[np.bool_]
    layout: NDArray[Any]
    absorbed_shares: dict[int, float]
    checksums: Written
    small: bool = False

    def rows_of_views(self, paths: Sequence[str]) -> list[ViewRow]:
        """Convert to rows of the table `views`, given the paths of all images of the run."""
        end = SMALL if self.small else ""
        names = {row: picture_name(self.target, row) + end for row in self.absorbed_shares}
        return [
            ViewRow(
                target=self.target, row=row, path=paths[row], member=bool(member), x=float(x), y=float(y),
                picture=names.get(row, ""),
            )
            for row, member, (x, y) in zip(self.rows.tolist(), self.member, self.layout, strict=True)
        ]  # fmt: skip


def picture_name(target: int, row: int) -> str:
    """Name the picture of a row for a target, without extension."""
    return f"pictures/{target}-{row}"


def pick_at_random(positions: NDArray[Any], count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Draw at most `count` of the positions at random."""
    return positions if len(positions) <= count else np.sort(rng.choice(positions, count, replace=False))


def outline_mask(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw a green outline around a mask (h, w), of any size, on a picture (H, W, 3); the line lies outside."""
    height, width = pixels.shape[:2]
    wide = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    line = binary_dilation(wide, iterations=-(-min(height, width) // LINE)) & ~wide
    return np.where(line[..., None], np.array(GREEN, np.uint8), pixels)


def encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Encode a picture as JPEG; small ones are enlarged by nearest neighbour, so that their pixels stay visible."""
    picture = Image.fromarray(pixels)
    factor = max(1, -(-LEAST_SIDE // min(picture.size)))
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    buffer = BytesIO()
    thumbnail(picture, 224).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def encode_small(pixels: NDArray[np.uint8]) -> bytes:
    """Encode a picture as JPEG of at most SMALL_SIDE pixels, as few bytes as it can still be recognised with."""
    buffer = BytesIO()
    thumbnail(Image.fromarray(pixels), SMALL_SIDE).save(buffer, "JPEG", quality=70, optimize=True)
    return buffer.getvalue()
