"""Settings of an audit: numbers have a range, told in the description and in the error."""

import pytest

from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.ground.errors import UsageError
from klarsicht.ground.ranges import Range, range_of


@pytest.mark.parametrize(
    ("name", "value", "least", "most"),
    [("unit", 10**9, 1, 65536), ("threads", 10**5, 1, 1024), ("batch", 10**6, 0, 4096)],
)
def test_numbers_have_a_range_that_the_error_and_the_description_tell(name, value, least, most):
    with pytest.raises(UsageError, match=str(most)):
        AuditSettings.from_mapping({"model": "m", "data": "d", name: value})
    assert range_of(AuditSettings, name) == Range(least, most)
