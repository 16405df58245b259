"""Evaluate corrections of a run, and write a certificate that compares them.

OUT/certificate.json
OUT/certificate.html     one self-contained page
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from klarsicht.audit.cleaning.models import certificate, certificate_page, evaluation
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.certificate import Certificate
from klarsicht.audit.cleaning.models.evaluation import Evaluation
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.ground.machine.disk import translate_write_errors, write_atomically
from klarsicht.ground.run_folder.manifest import to_json


@dataclass(frozen=True)
class CertificationResult:
    """Certificate, its folder, and the evaluations made for it."""

    folder: Path
    certificate: Certificate
    evaluations: tuple[Evaluation, ...]

    def check(self) -> None:
        """Check that a correction may be called clean.

        Raises:
            HarmExceeded, EffectRemains: none may.
        """
        if len(self.certificate.evaluations) == 1:
            self.evaluations[0].check()
        self.certificate.check()


def certify(
    run: str | Path, folders: Sequence[str | Path], *, also: Sequence[str | Path] = (), out: str | Path | None = None,
    test: str | None = None, images: int | None = None, overall: float | None = None, affected: float | None = None,
    data: str | None = None, classifier: Classifier | None = None, seed: int = 0,
    device: str = ANY_DEVICE,
) -> CertificationResult:  # fmt: skip
    """Evaluate corrections of a run, and write the certificate.

    Args:
        run: the run folder.
        folders: folders of the corrections.
        also: folders of corrections of other models that are evaluated already: further seeds.
        out: the folder of the certificate; by default RUN/certificate.
        data: where the corpus is now, if it moved.
        classifier: a model built in Python, in place of the one that the run names.
        device: where the model runs, see ground.machine.devices.select_device.
        test, images, overall, affected, seed: see evaluation.evaluate.

    Raises:
        UsageError: corrections of more than one class, or with different bounds.
        InputError, RunMismatch: see evaluation.evaluate.
    """
    audited_run = AuditedRun.of(run, data, classifier, device)
    made = tuple(
        evaluation.evaluate_run(
            audited_run, folder, test=test, images=images, overall=overall, affected=affected, seed=seed
        )
        for folder in folders
    )
    found = certificate.read_certificate([*folders, *also])
    place = Path(out) if out else audited_run.store.path / "certificate"
    write_certificate(found, place)
    return CertificationResult(place, found, made)


def write_certificate(found: Certificate, out: Path) -> None:
    """Write both files, each atomically."""
    with translate_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "certificate.html", certificate_page.render_page(found).encode())
    write_atomically(out / "certificate.json", to_json(found.to_json()))
