"""Questions of a run by the files that their commands write, told by a stand-in for the run folder."""

import pytest

from klarsicht.audit.results.questions import QUESTIONS, list_questions


class Store:
    def __init__(self, target, *written):
        self.manifest, self.written = {"settings": {"target": target}}, written

    def has_file(self, name):
        return name in self.written

    has_table = has_file


@pytest.mark.parametrize(
    ("written", "command"),
    [
        ("quantification.json", "audit quantify"),
        ("shortcuts.json", "audit shortcuts"),
        ("surroundings.json", "audit shortcuts"),
        ("duplicates.json", "audit duplicates"),
        ("power", "audit power"),
    ],
)
def test_a_question_was_asked_where_its_command_has_written(written, command):
    asked = [question for question, was_asked in list_questions(Store("label", written)) if was_asked]
    assert [question.command for question in asked] == [command]


def test_of_a_screening_no_question_compares_classes():
    found = list_questions(Store("carton", "screening.json"))
    assert [(question.command, asked) for question, asked in found] == [
        ("audit quantify", True), ("audit duplicates", False),
    ]  # fmt: skip
    assert len(list_questions(Store("label"))) == len(QUESTIONS) == 5
