"""Compute and store the relevance of every image: the first step of an audit."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from klarsicht.audit.explanation.data.label_order import Order
from klarsicht.audit.explanation.data.locations import is_url
from klarsicht.audit.explanation.data.sequences import SequenceReader
from klarsicht.audit.explanation.data.skipped_images import SkippedImages
from klarsicht.audit.explanation.data.tables_in_memory import ListedFiles
from klarsicht.audit.explanation.engines import parse_engine
from klarsicht.audit.explanation.executor import partition
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.models.crop_geometry import measure_seen_area
from klarsicht.audit.explanation.models.forward import Observation
from klarsicht.audit.explanation.models.specifications import names_files
from klarsicht.audit.explanation.networks.outputs import is_distribution
from klarsicht.audit.explanation.relevance import attribution
from klarsicht.audit.explanation.relevance.attribution import Attribution, TimedUnit
from klarsicht.audit.explanation.relevance.image_batches import WaitingTime
from klarsicht.audit.explanation.relevance.relevance import Relevance
from klarsicht.audit.explanation.spectral.analysis import head_weight
from klarsicht.audit.explanation.steps import step_units
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.explanation.steps.skipped_images import read_skipped, try_skipped_again
from klarsicht.ground.errors import ModelError
from klarsicht.ground.machine.devices import select_device
from klarsicht.ground.progress import MIN_SECONDS, note
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.store import RunStore

WITH_TRANSFORM = "return (module, transform) with a transform that makes images of the right size"
CERTAIN = 1e-5  # of a sum of probabilities in one answer


def attribute(audit: Audit, store: RunStore, workers: int, own: Classifier | None = None) -> None:
    """Compute the relevance of every image, unit by unit; those that were skipped before are tried again. Raises
    TooManySkipped where more images, or more of a class, cannot be used than the settings allow; the unit with which
    they become too many is not marked done. Raises as `Attribution`."""
    here = model_to_send(audit, own is not None, workers)
    work = Attribution(
        store, audit.corpus, audit.settings, audit.targets, audit.classifier.identity, load_worker_model, here
    )
    units = partition(len(audit.corpus), audit.settings.unit)
    audit.sharing.once("corpus", lambda: begin_attribution(audit, store, work))
    if audit.sharing.shard is None:  # other shards may be at what depends on them
        audit.sharing.once("skipped", lambda: try_skipped_again(audit, store, work))
    tally = SkippedImages(audit.corpus, audit.settings.max_skipped)
    tally.add(read_skipped(store))
    times: list[WaitingTime] = []

    def note_unit(unit: TimedUnit) -> Written:
        times.append(unit.time)
        tally.add(unit.reasons)
        return unit.checksums

    step_units.run_step(audit, store, work, attribution.STEP, units, workers, "relevance", note_unit)
    if audit.sharing.shard is not None:
        tally.add(read_skipped(store))  # those of other processes, too
    time, device = sum(times, WaitingTime()), audit.classifier.device.type
    if time.seconds >= MIN_SECONDS:
        note(f"relevance: loading images for the {device} took {100 * time.share:.0f} % of {time.seconds:.0f} s")


def model_to_send(audit: Audit, is_own: bool, workers: int) -> Classifier | None:
    """Return the model that units have by value: where they stay in this process, where it was built in Python, and on
    an engine where its specification names files, which workers need not see. None: workers load it by that."""
    if is_own or (parse_engine(audit.settings.engine) is None and workers == 1):
        return audit.classifier
    travels = parse_engine(audit.settings.engine) is not None and names_files(audit.settings.model)
    return audit.classifier if travels else None


def locate(data: str) -> str:
    """Return the path of a corpus that holds from any folder; a URL as it is."""
    return data if is_url(data) else str(Path(data).resolve())


def begin_attribution(audit: Audit, store: RunStore, work: Attribution) -> None:
    """Create the arrays, and record the corpus and what is known of the model."""
    begun = store.manifest.get("arrays")
    if begun is None or not all(map(store.is_created, begun)):
        create_arrays(audit, store, work)
    store.update_manifest(data=locate(audit.settings.data), names=list(audit.names))
    if isinstance(audit.corpus.reader, SequenceReader | ListedFiles):
        store.update_manifest(sequence=True)
    if audit.classifier.notes:
        store.update_manifest(model_notes=list(audit.classifier.notes))
    store.write_blocks("corpus", audit.corpus.to_blocks())


@lru_cache(maxsize=1)
def load_worker_model(spec: str, identity: str, device: str) -> Classifier:
    """Load the model in a worker process, once; raises ModelError where its weights differ from those of the run."""
    classifier = load_model(spec, device=select_device(device))
    if classifier.identity != identity:
        rule, remedy = "the same weights each time it is built", "Load them from a file, or use --workers 1."
        raise ModelError("a worker loaded a model other than that of this run", got=spec, rule=rule, remedy=remedy)
    return classifier


def create_arrays(audit: Audit, store: RunStore, work: Attribution) -> None:
    """Attribute one image as a test, and create the arrays that are missing; the manifest lists them. Raises as
    `check_logits`."""
    n, unit = len(audit.corpus), audit.settings.unit
    if audit.settings.maps and (middle := attribution.middle_layer(work, range(n))):
        store.update_manifest(middle=middle)
    output = attribution.probe(work, range(n))
    check_logits(audit.classifier, output)
    arrays = attribution.arrays_to_store(output, audit.settings.parts)
    store.update_manifest(left_out=audit.corpus.left_out, arrays=sorted(arrays))
    if isinstance(output, Relevance):
        store.update_manifest(method=output.method)
    if audit.classifier.form is not None:
        store.update_manifest(array_form=audit.classifier.form.to_json())
    if (area := measure_seen_area(audit.classifier)) is not None:
        store.update_manifest(seen=area.to_json())
    for name in sorted(arrays):
        store.create_array(name, (n, *arrays[name].shape[1:]), arrays[name].dtype, unit, attribution.STEP)


def check_logits(classifier: Classifier, output: Relevance | Observation) -> None:
    """Check that the network has at least two logits, computed by its last layer; raises ModelError. `load_model` makes
    logits of other answers, if it can run the network on test images."""
    outputs, weight = output.logits.shape[1], head_weight(classifier)
    if outputs < 2:
        raise ModelError(
            "a network with one output", got=f"logits of shape (B, {outputs})", rule="one logit for each class",
            remedy=f"Return two logits, (-y/2, y/2) for a logit y, or {WITH_TRANSFORM}.",
        )  # fmt: skip
    if is_distribution(torch.from_numpy(output.logits), CERTAIN):
        raise ModelError(
            "the model answers with probabilities", got="numbers above 0 that sum to 1", rule="logits are audited",
            remedy=f"Leave the softmax out, or {WITH_TRANSFORM}.",
        )  # fmt: skip
    if weight is not None and (len(weight) != outputs or weight.shape[1] != output.features.shape[1]):
        what = f"the last fully connected layer, {classifier.head}, does not give the logits"
        got = f"weights {weight.shape} and {outputs} logits"
        raise ModelError(what, got=got, rule="logits = features @ weights.T + bias")


def require_label_order(store: RunStore) -> None:
    """Check that predictions do not match the labels in another order, where labels are audited; raises CorpusError."""
    if "order" in store.manifest:
        Order.from_json(store.manifest["order"]).require_given(store.manifest["names"])


def record_label_order(audit: Audit, store: RunStore) -> None:
    """Record how many images are predicted as their label, where labels are audited; images of several are left out."""
    if audit.settings.target == "label":
        outputs, used = attribution.read_predictions(store)
        used &= np.bincount(audit.corpus.image_numbers)[audit.corpus.image_numbers] == 1
        labels, predicted = np.asarray(audit.targets)[used], outputs[used]
        store.update_manifest(order=Order.of(labels, predicted, audit.classifier.n_classes).to_json())
