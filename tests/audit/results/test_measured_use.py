"""The use that `audit clean` measured stays with the run, one record an artifact, and reads in words."""

from dataclasses import replace

from klarsicht.audit.results.measured_use import MeasuredUse, read_measured_uses, record_measured_use
from klarsicht.ground.run_folder.store import RunStore

TEAPOT = MeasuredUse("teapot", 2, 1, 1200, 0.9, 0.88, 0.93, "cleaned: 9 % of the artifact's effect is left")


def test_a_use_is_read_as_it_was_recorded_and_the_last_one_of_an_artifact_counts(tmp_path):
    run = RunStore.create(tmp_path / "run", settings={}, identity={})
    assert read_measured_uses(run) == ()
    second, again = replace(TEAPOT, number=2, turned=0.5), replace(TEAPOT, turned=0.91)
    for use in (second, TEAPOT, again):
        record_measured_use(run, use)
    assert read_measured_uses(run) == (again, second)
    assert second.describe() == (
        "`audit clean` measured that the artifact of teapot (artifact 2) turns 50 % of 1,200 other images into the "
        "class (88 % to 93 %)"
    )
