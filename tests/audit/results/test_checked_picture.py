"""The limits of a check of pictures in words, and a picture that is printed."""

from klarsicht.audit.results.checked_picture import CheckedPicture, CheckedPictures


def test_limits_name_what_pictures_could_not_be_compared_with_and_what_was_measured_of_it():
    told = "`audit clean` measured that the artifact of teapot turns 90% of 40 other images into the class"
    found = CheckedPictures((), (), ("teapot",), 0.05, 40, (told,))
    assert found.limits.startswith(
        f"No picture could be compared with that of teapot: only a group of images shows it. {told}."
    )
    assert "knows no artifact" not in found.limits
    assert CheckedPictures((), (), (), 0.05, 40).limits.startswith("The run knows no artifact.")
    both = CheckedPictures((), ("carton",), ("teapot", "cup"), 0.05, 40).limits
    assert both.startswith("Compared with the artifacts of carton. No picture could be compared with those of teapot")


def test_a_picture_prints_its_file_and_what_its_prediction_rests_on():
    assert repr(CheckedPicture("folder/a.png", "carton", 3, 0.9, ())) == (
        "CheckedPicture('a.png', 'carton', rests on: not shown)"
    )
    unread = CheckedPicture("folder/a.png", "", -1, 0.0, (), "no picture")
    assert "not checked" in repr(unread) and "<td>not checked: no picture</td>" in unread._repr_html_()
