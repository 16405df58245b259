"""The easy door of certificates: corrections of a run evaluated, and written down side by side.

OUT/certificate.json
OUT/certificate.html     one page that needs nothing else
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from klarsicht.audit.clean import certificate, certificate_page, evaluation
from klarsicht.audit.clean.audited_run import AuditedRun
from klarsicht.audit.clean.certificate import Certificate
from klarsicht.audit.clean.evaluation import Evaluation
from klarsicht.audit.models.classifier import Classifier
from klarsicht.ground.disk import write_atomically, writing
from klarsicht.ground.manifest import to_json


@dataclass(frozen=True)
class Certified:
    """A certificate, where it lies, and the evaluations that were made for it."""

    folder: Path
    certificate: Certificate
    evaluations: tuple[Evaluation, ...]

    def check(self) -> None:
        """Raises HarmExceeded or EffectRemains where no correction may be called clean."""
        if len(self.certificate.evaluations) == 1:
            self.evaluations[0].check()
        self.certificate.check()


def certify(
    run: str | Path, folders: Sequence[str | Path], *, also: Sequence[str | Path] = (), out: str | Path | None = None,
    test: str | None = None, images: int = 400, overall: float | None = None, affected: float | None = None,
    data: str | None = None, classifier: Classifier | None = None, seed: int = 0,
) -> Certified:  # fmt: skip
    """Evaluates corrections of a run, and writes the certificate.

    Args:
        folders: of the corrections. also: of corrections of other models, evaluated already: further seeds.
        out: the folder of the certificate; by default RUN/certificate.
        test, images, overall, affected, seed: see evaluation.evaluate.

    Raises:
        UsageError: corrections of more than one class, or judged by different bounds.
        InputError, RunMismatch: see evaluation.evaluate.
    """
    patient = AuditedRun.of(run, data, classifier)
    made = tuple(
        evaluation.evaluated(patient, folder, test=test, images=images, overall=overall, affected=affected, seed=seed)
        for folder in folders
    )
    found = certificate.read([*folders, *also])
    place = Path(out) if out else patient.store.path / "certificate"
    write(found, place)
    return Certified(place, found, made)


def write(found: Certificate, out: Path) -> None:
    """Both files, each as a whole."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "certificate.html", certificate_page.rendered(found).encode())
    write_atomically(out / "certificate.json", to_json(found.to_json()))
