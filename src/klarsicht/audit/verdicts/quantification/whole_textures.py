"""Find classes that the network follows by their fine texture, which all of their images have.

Detectors look for what some images of a class share. Noise, sharpness or compression of every image of a class leave no
image to compare with within the class. So the fine texture of each class is exchanged with that of other classes, as
`audit shortcuts` exchanges all parts, and its score is held against the same natural classes.
"""

from __future__ import annotations

from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.results.sufficiency import Sufficiency, order_profiles
from klarsicht.audit.verdicts.interventions.image_parts import FINE_TEXTURE
from klarsicht.audit.verdicts.quantification.sufficiency import PROFILE_IMAGES, make_profiles, run_units
from klarsicht.audit.verdicts.quantification.sufficiency_units import PartReader
from klarsicht.audit.verdicts.quantification.units import DetectionUnits


def find_followed_textures(audit: Audit, work: DetectionUnits, level: float, workers: int) -> Sufficiency:
    """Measure the fine texture of every class of a run; the parts of the profiles are this one.

    Args:
        level: of p for all classes together, so that one among so many clean classes is noted as seldom.
    """
    reader = PartReader(work, PROFILE_IMAGES, only=FINE_TEXTURE)
    of_each = level / len(work.groups)
    answers = run_units(audit, reader, of_each, workers)
    return Sufficiency(order_profiles(make_profiles(answers, {})), of_each, PROFILE_IMAGES)
