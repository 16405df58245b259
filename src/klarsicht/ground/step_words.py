"""Words for the steps of a run, whose names in its folder are those of its parts."""

from __future__ import annotations

STEP_WORDS = {
    "attribution": "relevance",
    "views": "pictures of clusters",
    "embedding": "learned embedding",
    "signs": "detections of artifacts",
    "effects": "artifacts on other images",
    "transplants": "clusters on other images",
    "evidence": "pictures of artifacts",
    "seen": "pictures of groups that no verdict names",
    "thumbnails": "thumbnails, to find copies",
    "copy_pairs": "copies among thumbnails",
    "profiles": "sufficient parts",
    "exceptions": "pictures of exceptions",
    "ranking": "ranking",
    "ranking.json": "ranking",
    "report.html": "report",
}
KINDS_OF_STEPS = {
    "spray-": "clusters",
    "further-": "further artifacts",
    "kept-": "images with one part left",
    "missing-": "images without a part",
    "exchanged-": "parts on other images",
    "power-": "plants in this corpus",
    "poisoning-": "trainings on planted corpora",
}  # by the beginning of their names
MEASURED_BESIDE = ("power-", "poisoning-")  # steps of `audit power`, without which a run is complete


def describe_step(name: str) -> str:
    """Describe a step by its name in the run folder; a name that is not known stands for itself."""
    if name in STEP_WORDS:
        return STEP_WORDS[name]
    for beginning, words in KINDS_OF_STEPS.items():
        if name.startswith(beginning):
            rest = name.removeprefix(beginning)
            return f"{words} ({rest})" if beginning == "spray-" else words
    return name


def is_measured_beside(name: str) -> bool:
    """Say whether a step belongs to `audit power`, which plants in a run that is complete without it."""
    return name.startswith(MEASURED_BESIDE)
