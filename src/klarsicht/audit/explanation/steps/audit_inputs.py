"""Model, corpus and settings of an audit, opened and checked against each other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.explanation.data import groups
from klarsicht.audit.explanation.data.class_names import make_distinct, read_class_map
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.data.label_cells import LabelCells
from klarsicht.audit.explanation.data.manifest import ColumnNames
from klarsicht.audit.explanation.engines import parse_engine
from klarsicht.audit.explanation.models.classifier import Classifier, label_indices, load_model
from klarsicht.audit.explanation.models.specifications import check_model_of_run, code_of
from klarsicht.audit.explanation.relevance import attribution
from klarsicht.audit.explanation.relevance.image_batches import choose_batch_size, first_image
from klarsicht.audit.explanation.settings import ANY_DEVICE, AuditSettings
from klarsicht.audit.explanation.spectral.analysis import METRICS, head_weight, require_head_weight
from klarsicht.ground.errors import CorpusError, UsageError
from klarsicht.ground.machine.devices import select_device
from klarsicht.ground.run_folder.manifest import Manifest
from klarsicht.ground.run_folder.shards import Sharing
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.trust import RecordedCode, record_code


@dataclass(frozen=True)
class Audit:
    """Model, corpus and settings, checked against each other, and how the work is shared with other processes. A row of
    the corpus is an (image, label) pair where the target is the label, else an image, whatever its labels."""

    settings: AuditSettings
    corpus: Corpus
    classifier: Classifier
    sharing: Sharing = field(default_factory=Sharing)

    @classmethod
    def of(cls, settings: AuditSettings, classifier: Classifier | None = None, corpus: Any = None) -> Audit:
        """Open model and corpus of the settings, or those built in Python that are given in their place. Raises
        UsageError for an unknown metric, method or class, a metric that the target does not allow, or several labels of
        a class folder, and the errors of `open_corpus` and `load_model`."""
        check_names(settings)
        chosen = select_data(settings, corpus)
        device = select_device(settings.device)
        model = classifier or load_model(settings.model, device=device)
        audit = cls(settings, chosen.as_arrays(model.form), model.with_outputs(settings.independent_outputs))
        if "concept" in settings.metric and not settings.maps:
            require_head_weight(head_weight(audit.classifier))
        return audit

    @classmethod
    def of_run(
        cls, store: RunStore, data: Any = None, classifier: Classifier | None = None, device: str = ANY_DEVICE
    ) -> Audit:
        """Open model and corpus of a run, or a model built in Python in place of the one that the run names; `data` is
        where the corpus is now, if it moved, or the corpus or sequence of a run of one in Python. Raises as `of` and
        `settings_of_run`, and UntrustedCode where the run names code that lies inside it, or that has changed since."""
        settings = settings_to_open(store, data, classifier, device)
        return cls.of(settings, classifier, None if isinstance(data, str) else data)

    def with_batch(self) -> Audit:
        """Return the audit with a batch size, chosen within the memory of the settings where they have none."""
        if self.settings.batch:
            return self
        _ = self.corpus.hash  # notes which images cannot be read
        image = first_image(self.corpus, self.classifier, attribution.MAX_PROBED)
        if image is None:  # the probe of the first images raises the error
            return replace(self, settings=self.settings.with_values(batch=1))
        size = choose_batch_size(self.classifier, image, self.settings.batch_memory)
        return replace(self, settings=self.settings.with_values(batch=size))

    def on_engine(self, engine: str) -> Audit:
        """Return the audit whose units run on an engine, there on the kind of device that the model has here, since a
        run stays on one kind. Raises UsageError: see `parse_engine`."""
        device = self.settings.device
        if parse_engine(engine) is not None and device == ANY_DEVICE:
            device = self.classifier.device.type
        return replace(self, settings=self.settings.with_values(engine=engine, device=device))

    @cached_property
    def index(self) -> dict[str, int]:
        """Output of the model for each label; labels unknown to the model are left out unless they determine the
        target."""
        labels = self.corpus.classes
        if self.settings.class_map is not None:
            return read_class_map(Path(self.settings.class_map), labels, self.classifier.n_classes)
        try:
            return label_indices(labels, self.classifier)
        except CorpusError:
            if self.settings.target == "label":
                raise
            known = {name: i for i, name in enumerate(self.classifier.classes or ())}
            return {label: known[label] for label in labels if label in known}

    def index_of(self, corpus: Corpus) -> dict[str, int]:
        """Return the output of the model for each label of another corpus: as in the index, or by name or number; none
        is numbered by its order there. Raises CorpusError, which lists unknown labels."""
        further = tuple(label for label in corpus.classes if label not in self.index)
        if self.settings.class_map is not None:
            return self.index | read_class_map(Path(self.settings.class_map), further, self.classifier.n_classes)
        return self.index | label_indices(further, self.classifier, in_order=False)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name of each output: the label that maps to it, else the model's own name, else its number; an own name that
        is the label of another output is numbered, as "ant (2)"."""
        outputs = self.classifier.classes or tuple(str(i) for i in range(self.classifier.n_classes))
        by_output: dict[int, list[str]] = {}
        for label, output in sorted(self.index.items()):
            by_output.setdefault(output, []).append(label)
        own = [i for i in range(len(outputs)) if i not in by_output]
        labels = tuple(self.index)
        free = dict(zip(own, make_distinct((*labels, *(outputs[i] for i in own)))[len(labels) :], strict=True))
        return tuple(free[i] if i in free else " / ".join(by_output[i]) for i in range(len(outputs)))

    @property
    def targets(self) -> NDArray[np.int64]:
        """The output explained for each row; -1 for the predicted one, or where all are screened."""
        target = self.settings.target
        if target == "label":
            return np.array([self.index[label] for label in self.corpus.labels], np.int64)
        fixed = -1 if target in ("predicted", "all") else groups.find_output(target, self.names, self.index)
        return np.full(len(self.corpus), fixed, np.int64)

    def groups(self, predicted: NDArray[Any], usable: NDArray[np.bool_]) -> list[Group]:
        """Return the groups that are analysed together, by target."""
        target = self.settings.target
        if target == "label":
            first = groups.first_of_each(self.corpus.image_numbers, self.targets)
            return groups.group_by_label(self.targets, self.names, usable & first)
        if target == "predicted":
            return groups.group_by_prediction(predicted, self.names, usable)
        if target == "all":
            return groups.group_for_screening(range(self.classifier.n_classes), self.names, usable)
        return groups.group_for_screening([int(self.targets[0])], self.names, usable)


def open_data(settings: AuditSettings, data: Any) -> Corpus:
    """Open a corpus, a path or what it is in Python, in the way of the settings; see
    audit.explanation.data.corpus_formats."""
    cells = LabelCells(settings.label_separator or "", settings.label_columns or ())
    names = ColumnNames(settings.path_column or "", settings.label_column or "", settings.source_column or "")
    opened = open_corpus(data, cells, names, settings.decode or "")
    return opened.with_limits(settings.white_level, settings.megapixels)


def settings_to_open(
    store: RunStore, data: Any = None, classifier: Classifier | None = None, device: str = ANY_DEVICE
) -> AuditSettings:
    """Return the settings by which a run can be opened, without opening anything. Raises as `settings_of_run`, and
    without a classifier UntrustedCode where the run names code that lies inside it, or that has changed since."""
    settings = settings_of_run(store, data, device)
    if classifier is None:
        check_model_of_run(settings.model)
        RecordedCode.of(store.path, store.manifest).require(code_of(settings.model))
    return settings


def settings_of_run(store: RunStore, data: Any = None, device: str = ANY_DEVICE) -> AuditSettings:
    """Read the settings of a run whose corpus is opened again, see `Audit.of_run`. Raises UntrustedCode where the run
    names a decoder that lies inside it, or that has changed since, and as `require_given` and AuditSettings.of_run."""
    require_given(store.manifest, data)
    settings = AuditSettings.of_run(store.manifest, data if isinstance(data, str) else None, device)
    RecordedCode.of(store.path, store.manifest).require(settings.decode)
    return settings


def record_own_code(store: RunStore, settings: AuditSettings) -> None:
    """Record the hashes of the files that the model and the decoder of a command are imported from."""
    code = record_code(code_of(settings.model), settings.decode)
    if store.manifest.get("code", {}) != code:
        store.update_manifest(code=code)


def require_given(manifest: Manifest, data: Any) -> None:
    """Check that the corpus of a run is given again where it was a sequence or a table in Python; raises
    CorpusError."""
    if data is None and manifest.get("sequence"):
        rule = "it was a sequence or a table in Python, which a run does not store"
        remedy = "Call the function in Python with data= this sequence or table."
        raise CorpusError("the corpus of this run is not given", got="no data", rule=rule, remedy=remedy)


def select_data(settings: AuditSettings, corpus: Any = None) -> Corpus:
    """Open the rows that an audit works on, of a corpus in Python or that of the settings: those of the split, and
    pairs of image and label where labels are audited."""
    chosen = open_data(settings, settings.data if corpus is None else corpus)
    chosen = chosen.select(split=settings.split) if settings.split else chosen
    return chosen.pairs() if settings.target == "label" else chosen


def check_names(settings: AuditSettings) -> None:
    """Check that the metrics have the maps that they need; raises UsageError."""
    propagated = [metric for metric in settings.metric if METRICS[metric].needs_propagation]
    if propagated and not settings.maps:
        raise UsageError(
            f"the metric {propagated[0]} compares propagated relevance",
            got=f"target {settings.target}, method {settings.method}",
            rule="maps explain one class for each image, by a method that makes maps",
            remedy="Use --metric concept, or name one class as --target and another --method.",
        )  # fmt: skip
    if settings.parts and not any(METRICS[metric].part_input for metric in settings.metric):
        rule, remedy = "parts are cut out of relevance maps", "Add --metric euclidean, or leave --parts out."
        raise UsageError("no metric that compares parts", got=", ".join(settings.metric), rule=rule, remedy=remedy)
