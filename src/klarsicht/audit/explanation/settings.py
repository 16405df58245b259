"""Settings of an audit: all parameters that determine its result, saved with the result."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from os import PathLike
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from klarsicht.ground.config import PathText, PublicSettings
from klarsicht.ground.errors import StoreError, UsageError, unknown_name

ANY_DEVICE = "auto"  # the device that select_device of ground.machine.devices takes by default
LOCAL_ENGINE = "local"
ENGINE_NAMES, WITH_ADDRESS = (LOCAL_ENGINE, "dask", "ray", "spark"), ("dask", "ray")
ENGINE_HELP = (
    "Where work units run: local; dask or ray, which start a cluster here; dask:ADDRESS, dask:FILE or ray:ADDRESS for "
    "one that runs; spark."
)
# settings of one machine or one call, on which the result does not depend
OF_THE_PLACE = ("data", "device", "readers", "batch_memory", "max_skipped", "engine")
HEAD_RELEVANCE = "HeadRelevance"  # method without propagation, for any network with a linear head; it makes no maps
METHOD_NAMES = (
    "auto", "EpsilonPlusFlat", "EpsilonPlusFlatIgnoreBias", "EpsilonGammaBox", "EpsilonAlpha2Beta1", "GammaAttention",
    "AttnLRP", "CP-LRP", "GradientTimesInput", "IntegratedGradients", "SmoothGrad", HEAD_RELEVANCE,
)  # fmt: skip
METRIC_NAMES = (
    "euclidean", "channels", "concept", "features", "wasserstein", "wasserstein-t", "wasserstein-ts", "wasserstein-tsr",
    "sliced-rotation", "gromov",
)  # fmt: skip
"""Names of the relevance methods and metrics, repeated here to be readable without torch; tests compare them."""

Metrics = Annotated[
    tuple[str, ...],
    Field(min_length=1, description=f"Distance between two images; may be repeated: {', '.join(METRIC_NAMES)}."),
]
MODEL_HELP = (
    "The model: torchvision:NAME@FILE, timm:NAME@FILE, hf:FOLDER, FILE.pt2, package.module:callable, "
    "file.py:callable, or efficientnet-lite0."
)
MODEL_RULE = "a specification; a model in Python is given to audit.run as classifier=, beside any text"
DATA_RULE = "a path or URL; a corpus in Python is given to audit.run as corpus=, beside any text"
DATA_HELP = (
    "A folder with one sub-folder a class, or a CSV or parquet file with columns path,label[,source,split]. Also "
    "parquet, WebDataset, IDX, NPZ, HDF5 or datasets with the images inside, or a URL of any of them."
)
PATH_COLUMN_HELP = (
    "The column of paths, or of images: a column of a table, an array of NPZ or HDF5, an ending in WebDataset."
)
LABEL_COLUMN_HELP = "The column of labels, in the same way."
SOURCE_COLUMN_HELP = "The column of sources (patient, video), in the same way."
DECODE_HELP = (
    "Your decoder, package.module:callable or file.py:callable: from a path, bytes or an array to an image. It returns "
    "a PIL.Image or an array: uint8, uint16, float in 0 to 1, or as the model takes it."
)
TARGET_HELP = "Class to explain: label or predicted, one class name for the whole corpus, or all."
METHOD_HELP = (
    f"Relevance method: {', '.join(METHOD_NAMES)} (no maps). auto takes GammaAttention where the network "
    "computes attention, EpsilonPlusFlat elsewhere."
)
LABELS_HELP = "A CSV file with columns label,index, where labels are not the model's own names."
SEPARATOR_HELP = (
    "Separator of several labels of an image in the manifest's column label, such as ';' or '|'. Not a blank."
)
COLUMNS_HELP = (
    "A column of 0 and 1 named by a class, instead of the column label; may be repeated. all: every column "
    "but path, source, split, weight."
)
INDEPENDENT_HELP = (
    "Outputs are independent, like sigmoids: a class counts by its own logit, not by its lead over the mean. "
    "[for sigmoids, and for several labels]"
)
PARTS_HELP = "Compare connected parts of relevance maps, by shape and by their features in a middle layer."
LAYER_HELP = "Middle layer for parts and channels. [halfway through the network]"
DEVICE_HELP = (
    "Where the model runs: auto (the GPU where torch sees one, else the CPU), cpu, mps, cuda, cuda:N, xpu or xpu:N. "
    "Results differ by rounding between kinds of devices."
)
BATCH_HELP = (
    "Images in a forward pass; 0: as many as fit into --batch-memory, chosen when the run begins and kept with it. "
    "Last bits of results depend on it."
)
BATCH_MEMORY_HELP = "Memory in GB that a batch may take where --batch is 0."
READERS_HELP = (
    "Threads that read, decode and transform images while the network computes; 0: none. Results do not depend on it."
)
WHITE_LEVEL_HELP = "Code of white in 16-bit files, such as 4095 for 12-bit data. [65535, or the manifest's]"


SKIPPED_HELP = (
    "Share of images, and of those of one class, that may be skipped because they cannot be used; beyond it the "
    "command ends with exit code 13. One image may be, unless it is 0."
)


def _as_text(value: Any, rule: str) -> str:
    """Return a text, or the text of a path. Raises ValueError with the rule, which becomes a UsageError."""
    if isinstance(value, str | PathLike):
        return str(value)
    raise ValueError(f"it should be {rule}")


class AuditSettings(PublicSettings):
    """Settings of `audit run`; the same settings, data and model give the same bytes. Each field has its description.

    `target`: `label` and `predicted` audit each class on its own images; the name of one class, or `all`, screens the
    whole corpus for it, or for every class. At most one `unit` is lost when the process is killed. `threads` is a
    setting because the last bit of sums depends on it.
    """

    model: Annotated[str, BeforeValidator(partial(_as_text, rule=MODEL_RULE)), Field(description=MODEL_HELP)]
    data: Annotated[str, BeforeValidator(partial(_as_text, rule=DATA_RULE)), Field(description=DATA_HELP)]
    target: Annotated[str, Field(description=TARGET_HELP)] = "label"
    metric: Metrics = ("concept",)
    method: Annotated[str, Field(description=METHOD_HELP)] = "auto"
    class_map: Annotated[PathText | None, Field(description=LABELS_HELP)] = None
    path_column: Annotated[str | None, Field(min_length=1, description=PATH_COLUMN_HELP)] = None
    label_column: Annotated[str | None, Field(min_length=1, description=LABEL_COLUMN_HELP)] = None
    source_column: Annotated[str | None, Field(min_length=1, description=SOURCE_COLUMN_HELP)] = None
    decode: Annotated[str | None, Field(min_length=1, description=DECODE_HELP)] = None
    label_separator: Annotated[str | None, Field(min_length=1, description=SEPARATOR_HELP)] = None
    label_columns: Annotated[tuple[str, ...] | None, Field(min_length=1, description=COLUMNS_HELP)] = None
    independent: Annotated[bool | None, Field(description=INDEPENDENT_HELP)] = None
    split: Annotated[str | None, Field(description="Only images of this split of the manifest.")] = None
    parts: Annotated[bool, Field(description=PARTS_HELP)] = False
    parts_layer: Annotated[str | None, Field(description=LAYER_HELP)] = None
    map_side: Annotated[int, Field(ge=4, le=224, description="Side of stored relevance maps.")] = 32
    neighbours: Annotated[int, Field(ge=2, le=200, description="Neighbours in the graph.")] = 10
    dimensions: Annotated[int, Field(ge=2, le=64, description="Dimensions of the spectral embedding.")] = 8
    batch: Annotated[int, Field(ge=0, le=4096, description=BATCH_HELP)] = 16
    batch_memory: Annotated[float, Field(gt=0, le=65_536, description=BATCH_MEMORY_HELP)] = 1.0
    unit: Annotated[int, Field(ge=1, le=65536, description="Images in a work unit.")] = 256
    threads: Annotated[int, Field(ge=1, le=1024, description="Threads of one worker.")] = 1
    white_level: Annotated[int | None, Field(ge=1, le=65535, description=WHITE_LEVEL_HELP)] = None
    megapixels: Annotated[float, Field(gt=0, le=10_000, description="Largest image to read, in megapixels.")] = 220
    max_skipped: Annotated[float, Field(ge=0, le=1, description=SKIPPED_HELP)] = 0.1
    seed: Annotated[int, Field(ge=0, le=2**32 - 1, description="Seed of all randomness.")] = 0
    device: Annotated[str, Field(description=DEVICE_HELP)] = ANY_DEVICE
    readers: Annotated[int, Field(ge=0, le=64, description=READERS_HELP)] = 1
    engine: Annotated[str, Field(description=ENGINE_HELP)] = LOCAL_ENGINE

    @classmethod
    def of_run(cls, manifest: Mapping[str, Any], data: str | None = None, device: str = ANY_DEVICE) -> AuditSettings:
        """Read the settings of a run from its manifest; `data` and `device` are where corpus and model are now. Raises
        StoreError where the run stopped before its data were read, or its settings are not of this version."""
        if not (data or manifest.get("data")):
            raise StoreError("the run is not finished", got="no data yet", remedy="Give its `audit run` again.")
        try:
            return cls.from_mapping(manifest["settings"] | {"data": data or manifest["data"], "device": device})
        except (UsageError, TypeError) as error:
            raise StoreError("the settings in manifest.json cannot be used", got=error) from error

    @model_validator(mode="after")
    def require_known_names(self) -> Self:
        """Check that metrics, method and engine are known, without torch; raises UsageError, which lists near
        matches."""
        split_engine(self.engine)
        for metric in self.metric:
            if metric not in METRIC_NAMES:
                raise unknown_name("metric", metric, METRIC_NAMES)
        if self.method not in METHOD_NAMES:
            raise unknown_name("relevance method", self.method, METHOD_NAMES)
        return self

    def to_record(self) -> dict[str, Any]:
        """Return the settings that the manifest keeps, as plain values: all but OF_THE_PLACE."""
        return self.model_dump(mode="json", exclude=set(OF_THE_PLACE))

    @property
    def may_take_gpu(self) -> bool:
        """Whether each worker of a cluster is to have a GPU of its own; one that is named by its number is shared."""
        return self.device == "cuda"

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several labels, or none."""
        return bool(self.label_separator or self.label_columns)

    @property
    def independent_outputs(self) -> bool | None:
        """Whether outputs of the model are independent; None where the model decides."""
        return True if self.independent is None and self.several_labels else self.independent

    @property
    def screens(self) -> bool:
        """Whether the whole corpus is screened for every class, so that no maps are stored."""
        return self.target == "all"

    @property
    def maps(self) -> bool:
        """Whether each image gets a relevance map."""
        return not self.screens and self.method != HEAD_RELEVANCE


def split_engine(text: str) -> tuple[str, str]:
    """Split the option `--engine` into the name of an engine and its address, empty where it has none. Raises
    UsageError: neither."""
    name, colon, address = text.strip().partition(":")
    if name not in ENGINE_NAMES or bool(colon) != bool(address) or (address and name not in WITH_ADDRESS):
        rule = ", ".join([*ENGINE_NAMES, *(f"{one}:ADDRESS" for one in WITH_ADDRESS)])
        raise UsageError("--engine is not an engine", got=repr(text), rule=rule)
    return name, address


def counts_own_logits(manifest: Mapping[str, Any]) -> bool:
    """Test by its manifest whether a run counts each class by its own logit."""
    return bool(manifest["independent"])
