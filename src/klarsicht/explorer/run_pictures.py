"""Pictures of the images of a run, as pages and exports show them."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO

from PIL import Image

from klarsicht.explorer import thumbnails
from klarsicht.explorer.artifact_masks import ArtifactMasks
from klarsicht.explorer.class_results import ILLUSTRATED
from klarsicht.explorer.exceptional_images import read_examined
from klarsicht.explorer.relevance_maps import RelevanceMaps
from klarsicht.explorer.run_decoder import RunDecoder
from klarsicht.explorer.run_reader import RunReader
from klarsicht.explorer.thumbnails import PictureCache
from klarsicht.ground.errors import ImageError, UsageError
from klarsicht.ground.pictures.array_images import ArrayForm
from klarsicht.ground.pictures.seen_area import SeenArea

PICTURES = ("image", "relevance", "overlay", "window", "masked", "mask", "own")
OF_A_CLASS = ("overlay", "window", "masked", "mask")  # pictures that depend on the class whose artifact is shown


@dataclass(frozen=True)
class RunPictures:
    """Pictures of images, with their relevance, and with windows and masks of artifacts, and those drawn so far.

    Attributes:
        decoder: by which the corpus was read.
        failures: why images could not be shown, by row.
    """

    reader: RunReader
    maps: RelevanceMaps
    masks: ArtifactMasks
    decoder: RunDecoder = field(default_factory=RunDecoder)
    cache: PictureCache = field(default_factory=PictureCache)
    failures: dict[int, str] = field(default_factory=dict)

    def draw(self, row: int, kind: str = "image", side: int = 96, target: int | None = None, source: str = "") -> bytes:
        """Draw a picture of an image: one of PICTURES.

        Args:
            side: pixels of its longer side; a mask has the size of the file.
            target: the class whose artifact is shown.
            source: of the mask, see `ArtifactMasks.of_image`.

        Raises:
            UsageError: no such image or picture, or the run has no relevance map, window or mask of it.
            ImageError: the image cannot be decoded, or is too large to be shown.
        """
        if kind not in PICTURES:
            raise UsageError("no such picture", got=repr(kind), rule=", ".join(PICTURES))
        self.reader.images().require(row)
        decisions = self.masks.decisions
        stamps = (decisions.results.stamp, decisions.stamp) if kind in OF_A_CLASS else ()
        name = (row, kind, side, target, source, stamps)
        return self.cache.get_or_draw(name, lambda: self._draw(row, kind, side, target, source))

    def _draw(self, row: int, kind: str, side: int, target: int | None, source: str) -> bytes:
        if kind == "relevance":
            return thumbnails.draw_relevance(self.maps.of([row])[0], side)
        if kind == "overlay" and not self.maps.exist and target is not None:
            return self._draw_stored_overlay(row, target, side)
        relevance = self.maps.of([row])[0] if kind == "overlay" else None
        picture = self.read(row)
        if kind == "image":
            return thumbnails.draw_picture(picture, side)
        area = self.masks.seen_area
        if area is None:
            raise UsageError(
                "where relevance lies on the file is not known", got="a transform that is no resize, crop and pad"
            )
        if relevance is not None:
            return thumbnails.draw_overlay(picture, area, relevance, side)
        if kind == "own":
            return self._draw_own(row, picture, area, side)
        if kind == "window":
            window = None if target is None else self.masks.decisions.results.windows(target).get(row)
            return thumbnails.draw_window(picture, area, window, side)
        if target is None:
            raise UsageError("a mask is that of a class", rule="target: the number of an output")
        mask = self.masks.of_image(target, row, picture.size, source)
        if kind == "masked":
            return thumbnails.draw_masked(picture, area, mask[1] if mask else None, side)
        if mask is None:
            raise UsageError("the artifact has no mask on this image", got=row)
        return thumbnails.draw_mask(mask[1])

    def _draw_own(self, row: int, picture: Image.Image, area: SeenArea, side: int) -> bytes:
        """Draw an image darkened beyond its own places."""
        run = read_examined(self.reader)
        own = None if run is None else run.own_places(row)
        if own is None:
            raise UsageError(
                "no own places of this image are known", got=row, remedy="Run `klarsicht audit shortcuts`."
            )
        return thumbnails.draw_own(picture, area, own, side)

    def _draw_stored_overlay(self, row: int, target: int, side: int) -> bytes:
        """Draw the overlay that the audit drew of an image for a class, in a run without maps."""
        name = self.masks.decisions.results.drawn_overlays(target).get(row)
        if name is None:
            raise UsageError("the run has no relevance of this image for this class", got=row)
        content = self.reader.store.read_unit_file(name, ILLUSTRATED)
        return thumbnails.draw_picture(Image.open(BytesIO(content)), side)

    def read(self, row: int) -> Image.Image:
        """Decode an image of the corpus as a picture, RGB or grey; raises ImageError, see thumbnails.read_picture."""
        settings, file = self.reader.manifest["settings"], self.reader.images().file(row)
        known = settings["megapixels"], settings["white_level"], self.array_form
        try:
            return thumbnails.read_picture(self.decoder.decode(file), file.name, *known)
        except ImageError as error:
            self.failures.setdefault(row, str(error))
            raise

    def describe_failures(self) -> str:
        """Say how many images could not be shown, and why the first; "" where all could."""
        count = len(self.failures)
        images = "1 image" if count == 1 else f"{count} images"
        return f"{images} cannot be shown; the first: {next(iter(self.failures.values()))}" if count else ""

    @property
    def array_form(self) -> ArrayForm | None:
        """Form of the arrays that the run's model takes; None: pictures."""
        known = self.reader.manifest.get("array_form")
        return None if known is None else ArrayForm.from_json(known)
