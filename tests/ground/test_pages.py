"""Texts of pages: the oracle is Python's parser of HTML."""

from html.parser import HTMLParser

from klarsicht.ground.pages import mark_commands


class Read(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_commands_become_code_and_nothing_else_becomes_markup():
    page = Read()
    page.feed(str(mark_commands("`klarsicht audit power` says <b>what</b> & `x<i>` \u202e\n")))
    assert page.tags == ["code", "code"]
    assert page.text == "klarsicht audit power says <b>what</b> & x<i> \\u202e\\x0a"
