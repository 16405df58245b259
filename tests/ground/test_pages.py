"""Texts of pages: the oracle is Python's parser of HTML."""

from html.parser import HTMLParser

from jinja2 import Environment

from klarsicht.ground.pages import _printable, keep_signs, mark_commands


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


def test_a_sign_stays_on_the_line_of_its_number_and_a_cell_is_still_escaped():
    """U+00A0 is the space at which no line breaks. One in a name of the user's is escaped, as all odd spaces are."""
    pages = Environment(autoescape=True, finalize=_printable)
    pages.filters["unbroken"] = keep_signs
    assert pages.from_string("{{ cell|unbroken }}").render(cell="a\u00a0b") == "a\\xa0b"
    assert pages.from_string("{{ cell|unbroken }}").render(cell="84 % (97 %) <b>") == "84\u00a0% (97\u00a0%) &lt;b&gt;"
