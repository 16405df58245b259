"""Tables of notebooks, as a reader of HTML that is not ours reads them."""

import xml.etree.ElementTree as ET

from markupsafe import Markup

from klarsicht.ground.pictures import notebook


def test_a_percent_sign_stays_in_the_line_of_its_number():
    """A browser may end a line at a space, and never at a no-break space (Unicode class GL)."""
    table = ET.fromstring(notebook.table(("share",), [("5.1 % (2.0 %)",), (0.5,), (Markup("<b>a b</b>"),)]))
    cells = ["".join(cell.itertext()) for cell in table.iter("td")]
    assert cells == ["5.1\u00a0% (2.0\u00a0%)", "0.5", "a b"]
    facts = ET.fromstring(notebook.facts([("accuracy <", "83 % & more")]))
    assert ["".join(cell.itertext()) for cell in facts.iter("td")] == ["83\u00a0% & more"]
