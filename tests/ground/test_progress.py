"""Progress. Oracles: a clock of our own, and a terminal emulated by a stream that says it is one."""

import gc
import io
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from klarsicht.cli.echo import echo
from klarsicht.ground.progress import (
    _open_logs,
    announce_loading,
    begin_loading,
    begin_serving,
    end_silences,
    note,
    progress,
    time,
    track,
    track_inside,
    whole_step,
)


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_track_yields_the_items_and_a_short_step_is_silent(capsys, clock):
    assert list(track("abc", 3, "letters")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_a_step_of_seconds_in_a_log_is_two_lines(capsys, clock):
    for _ in track(range(10), 10, "relevance"):
        clock[0] += 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "relevance: 3 of 10, about 0:00:07 to go",
        "relevance: 10 of 10 in 0:00:10 (1.0/s)",
    ]


def test_a_log_hears_of_a_day_of_work_every_minute_after_the_first_ten(capsys, clock):
    for _ in track(range(8640), 8640, "training"):
        clock[0] += 10
    done = [int(line.split()[1]) for line in capsys.readouterr().err.splitlines()[:-1]]
    assert done[:60] == [*range(1, 61)]  # for ten minutes with each item
    assert set(np.diff(done[60:])) == {7}  # items of ten seconds: the first beyond six more


def test_a_step_whose_first_item_takes_long_is_not_silent(capsys, monkeypatch):
    """A clock of its own: nothing is done for a second, and steps inside say how far they are."""
    monkeypatch.setattr("klarsicht.ground.progress.MIN_SECONDS", 0.1)
    monkeypatch.setattr("klarsicht.ground.progress.TICK", 0.02)
    seen = ""
    with progress("signs", 4) as advance, progress("detectors", 21) as inner:
        inner(3)
        for _ in range(250):
            time.sleep(0.02)
            if seen := seen + capsys.readouterr().err:
                break
        advance()
    assert seen == "signs: 0 of 4 (detectors: 3 of 21)\n"


def test_steps_within_steps_write_no_lines_of_their_own(capsys, clock):
    for _ in track(range(3), 3, "classes"):
        for _ in track(range(5), 5, "images"):
            clock[0] += 1
    assert capsys.readouterr().err.splitlines() == [
        "classes: 0 of 3 (images: 3 of 5)",
        "classes: 1 of 3 after 0:00:10 (images: 5 of 5)",
        "classes: 2 of 3, about 0:00:02 to go (images: 3 of 5)",
        "classes: 3 of 3 in 0:00:15 (5.0 s each)",
    ]


def test_a_part_of_a_step_is_shown_inside_it_and_alone_is_silent(capsys, clock):
    def work():
        for _ in track_inside(range(12), 12, "batches"):
            clock[0] += 1

    work()
    assert capsys.readouterr().err == ""
    with whole_step("judgement"):
        work()
    assert capsys.readouterr().err.splitlines() == [
        "judgement: 0 of 1 (batches: 3 of 12)",
        "judgement: 0 of 1 after 0:00:10 (batches: 10 of 12)",
        "judgement: 1 of 1 in 0:00:12 (12.0 s each)",
    ]


def test_a_step_that_is_left_early_leaves_nothing_open(capsys, clock):
    begun = track(range(9), 9, "begun")
    next(begun)
    for _ in track(range(4), 4, "after"):
        clock[0] += 1
    begun.close()
    with progress("last", 2) as advance:
        clock[0] += 5
        advance()
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["begun", "begun", "last", "last"]


def fail_inside(label):
    def labelled():
        yield from track(range(9), 9, label)

    steps = labelled()  # the traceback holds what has a name
    for _ in steps:
        raise ValueError(label)


def test_a_step_that_an_exception_keeps_open_does_not_silence_the_next_one(capsys, clock):
    """As after Ctrl-C in a notebook, whose traceback is kept for a debugger. A step inside is held as before."""
    with pytest.raises(ValueError, match="kept") as _kept:
        fail_inside("kept")
    for _ in track(range(4), 4, "after"):
        clock[0] += 1
        for _ in track(range(2), 2, "inside"):
            clock[0] += 1
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["after"] * 3
    del _kept
    assert capsys.readouterr().err == ""


def test_a_step_that_an_exception_keeps_open_is_no_part_of_the_next_bar(clock, cell):
    with pytest.raises(ValueError, match="kept") as _kept:
        fail_inside("kept")
    for _ in track(range(2), 2, "after"):
        clock[0] += 1
    del _kept
    assert [shown.partition("> ")[2].split(",")[0] for shown in cell] == ["kept: 0 of 9", "after: 2 of 2"]


def test_items_that_load_what_all_share_do_not_count_in_the_time_to_go(capsys, clock):
    """Sixty seconds for the first of a hundred, one for each of the others: ninety are left at the tenth."""
    for number in track(range(100), 100, "signs"):
        clock[0] += 1 if number else 60
    assert capsys.readouterr().err.splitlines()[:2] == [
        "signs: 1 of 100, 1:39:00 to go if each takes as long",
        "signs: 10 of 100, about 0:01:30 to go",
    ]


def test_a_second_item_that_loads_as_well_foretells_nothing(capsys, clock):
    """As pictures of classes: seven seconds, three, and a fifth of one for each of 73 more. Each time that is told is
    at most four times too long; by the second item alone it would be sixteen times."""
    for number in track(range(75), 75, "pictures"):
        clock[0] += (7, 3)[number] if number < 2 else 0.2
    told = re.findall(r"(\d+) of 75, about 0:(\d+):(\d+) to go", capsys.readouterr().err)
    assert told and all(60 * int(m) + int(s) <= 4 * 0.2 * (75 - int(done)) + 0.5 for done, m, s in told)


def test_a_long_first_item_says_what_all_would_take(capsys, clock):
    """Twenty classes of a minute: 19 minutes are left after the first, and half a minute later half a minute less."""
    with progress("clusters on other images", 20) as advance:
        clock[0] += 60
        advance()
        log = progress_log()
        for _ in range(80):
            clock[0] += 1
            log.write_if_due()
    lines = capsys.readouterr().err.splitlines()
    told = [re.search(r"1 of 20, 0:(\d+):(\d+) to go if each takes as long", line) for line in lines[:-1]]
    seconds = [60 * int(one[1]) + int(one[2]) for one in told if one]
    assert seconds[0] == 19 * 60 and seconds == sorted(seconds, reverse=True) and seconds[-1] >= 18 * 60
    assert [one is None for one in told][-1] and " after 0:02:" in lines[-2]  # the second takes longer than the first


def test_long_items_foretell_at_once(capsys, clock):
    for _ in track(range(400), 400, "trainings"):
        clock[0] += 60
    assert "trainings: 2 of 400, about 6:38:00 to go" in capsys.readouterr().err


def test_a_resumed_step_counts_only_its_own_work_in_the_rate(capsys, clock):
    with progress("relevance", 100, start=90) as advance:
        clock[0] += 5
        advance(5)
        clock[0] += 5
        advance(5)
    assert capsys.readouterr().err.splitlines() == [
        "relevance: 95 of 100",
        "relevance: 100 of 100 in 0:00:10 (1.0/s)",
    ]


def test_an_interrupted_step_says_how_far_it_came(capsys, clock):
    with pytest.raises(KeyboardInterrupt), progress("relevance", 4) as advance:
        advance()
        clock[0] += 10
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "relevance: 1 of 4 in 0:00:10 (10.0 s each)\n"


def test_a_step_whose_second_item_takes_long_writes_lines_that_say_since_when(capsys, clock):
    """Two items of a second and of ten minutes: a line, one after three times as long, then one every nine seconds."""
    with progress("corrections", 2) as advance:
        clock[0] += 1
        advance()
        log = progress_log()
        for _ in range(600):
            clock[0] += 1
            log.write_if_due()
        advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "corrections: 1 of 2",
        "corrections: 1 of 2 after 0:00:10",
        "corrections: 1 of 2 after 0:00:19",
    ]
    assert len(lines) == 1 + (1 + (601 - 10) // 9) + 1 and len(set(lines)) == len(lines)
    assert lines[-1] == "corrections: 2 of 2 in 0:10:01 (300.5 s each)"


def told_and_true(capsys, clock, costs):
    """Run items of so many seconds, a line being looked for each second, and return the seconds to go of each line
    (None where it has none) beside those that are left."""
    began, total = clock[0], sum(costs)
    found = []
    with progress("classes", len(costs)) as advance:
        for cost in costs:
            for _ in range(round(cost / 0.5)):
                clock[0] += 0.5
                progress_log().write_if_due()
                for line in capsys.readouterr().err.splitlines():
                    told = re.search(r"about (\d+):(\d+):(\d+) to go", line)
                    seconds = (
                        sum(int(n) * unit for n, unit in zip(told.groups(), (3600, 60, 1), strict=True))
                        if told
                        else None
                    )
                    found.append((seconds, total - (clock[0] - began)))
            advance()
    return found


def test_no_line_says_that_dear_last_items_take_no_time(capsys, clock):
    """Thirty items of half a second and three of half a minute: until the first of these is done nobody can know, but
    an item that takes longer than any before is no item of the usual time. Without that, the lines of a minute said 0
    seconds."""
    found = told_and_true(capsys, clock, [0.5] * 30 + [30] * 3)
    late = [(told, left) for told, left in found if left < 85]
    assert len(late) >= 8
    assert all(told is None or told >= left / 4 for told, left in late)
    assert all(told is None for told, left in late if left > 60)


def test_later_items_foretell_the_time_to_go(capsys, clock):
    """Forty items of a second and forty of five: from the middle of the dear ones on their own time is told."""
    found = told_and_true(capsys, clock, [1] * 40 + [5] * 40)
    late = [(told, left) for told, left in found if left < 0.6 * 200]
    assert len(late) >= 8 and all(told == pytest.approx(left, abs=5.5) for told, left in late if told is not None)
    assert sum(told is None for told, _ in late) == 0


def test_even_items_are_told_to_the_second(capsys, clock):
    found = told_and_true(capsys, clock, [4] * 50)
    assert len(found) > 15
    assert all(told == pytest.approx(left, abs=1) for told, left in found[3:])


def progress_log():
    return _open_logs.logs[0]


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def lines(self):
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue())
        return [line for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.fixture
def watched(monkeypatch):
    """Called inside the test: pytest puts its own streams back between a test's phases."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")

    def begin():
        monkeypatch.setattr(sys, "stderr", Terminal())
        return sys.stderr

    return begin


def test_a_terminal_sees_a_bar(watched, capsys):
    terminal = watched()
    assert list(track(range(7), 7, "relevance")) == list(range(7))
    assert re.search(r"relevance ━+ 7/7 .*0:00:00", terminal.lines()[-1])
    assert capsys.readouterr().out == ""


def test_steps_within_steps_share_the_terminal(watched):
    terminal = watched()
    for _ in track(range(2), 2, "classes"):
        list(track(range(3), 3, "images"))
    assert re.search(r"classes ━+ 2/2", terminal.lines()[-1])
    with progress("next", 1) as advance:
        advance()
    assert re.search(r"next ━+ 1/1", terminal.lines()[-1])


def wait_for_lines(capsys, count):
    """Lines of standard error, once there are so many."""
    printed = ""
    while printed.count("\n") < count:
        time.sleep(0.02)
        printed += capsys.readouterr().err
    return printed.splitlines()


def test_a_command_that_prints_nothing_says_that_it_is_loading(capsys):
    """Lines are never closer than the seconds between two: a busy machine may let some pass."""
    begin_loading()  # of a process that does not say it
    time.sleep(0.1)
    with end_silences(first=0.05, longest=0.1):
        time.sleep(0.1)
        assert capsys.readouterr().err == ""
        begin_loading()
        began = time.monotonic()
        printed = wait_for_lines(capsys, 3)
        seconds = time.monotonic() - began
    assert 3 <= len(printed) <= 1 + seconds / 0.1
    assert all(re.fullmatch(r"loading: \d:\d\d:\d\d so far", line) for line in printed)


@pytest.mark.parametrize("speak", [lambda: note("ready"), lambda: list(track("a", 1, "letters")), lambda: echo("done")])
def test_a_command_that_falls_silent_later_says_that_it_is_at_work(capsys, speak):
    with end_silences(first=0.3, longest=0.05):
        begin_loading()
        speak()
        capsys.readouterr()
        printed = wait_for_lines(capsys, 2)
    assert all(re.fullmatch(r"at work: \d:\d\d:\d\d so far", line) for line in printed)


def test_while_a_bar_is_shown_no_other_line_is(watched):
    terminal = watched()
    with end_silences(first=0.02, longest=0.02):
        begin_loading()
        with progress("letters", 2), progress("lines", 2):
            before = terminal.getvalue()
            time.sleep(0.2)
            assert " so far" not in terminal.getvalue().removeprefix(before)
        while " so far" not in terminal.getvalue().removeprefix(before):
            time.sleep(0.02)


def test_steps_that_are_too_short_for_a_line_do_not_keep_a_command_silent(capsys):
    with end_silences(first=0.05, longest=0.05):
        begin_loading()
        printed = ""
        while "at work" not in printed:
            list(track("abc", 3, "letters"))
            printed += capsys.readouterr().err
    assert "letters" not in printed


def test_garbage_is_looked_for_less_often_only_while_a_command_is_loading(capsys):
    usual = gc.get_threshold()
    with end_silences():
        begin_loading()
        assert gc.get_threshold()[0] > usual[0]
        note("loaded")
        assert gc.get_threshold() == usual
    with end_silences():
        begin_loading()
    assert gc.get_threshold() == usual


def test_a_command_that_waits_for_its_user_is_silent(capsys):
    with end_silences(first=0.02, longest=0.02):
        begin_loading()
        begin_serving()
        time.sleep(0.05)
        capsys.readouterr()
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


@pytest.fixture
def cell(monkeypatch):
    """The output of a notebook's cell: the latest state of each display, as IPython documents `display` and handles."""
    outputs = []

    def display(shown, *, display_id):
        assert display_id is True
        outputs.append(shown._repr_html_())
        number = len(outputs) - 1
        return SimpleNamespace(update=lambda now: outputs.__setitem__(number, now._repr_html_()))

    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return outputs


def test_a_step_in_a_notebook_is_one_bar_that_is_whole_at_the_end(capsys, clock, cell):
    for number in track(range(10), 10, "<relevance>"):
        clock[0] += 1
        if number == 4:
            assert cell == ['<progress max="10" value="4"></progress> &lt;relevance&gt;: 4 of 10, 0:00:04']
    assert cell == ['<progress max="10" value="10"></progress> &lt;relevance&gt;: 10 of 10, 0:00:10']
    assert capsys.readouterr() == ("", "")


def test_steps_inside_a_step_of_a_notebook_have_no_bars_of_their_own(clock, cell):
    seen = set()
    for _ in track(range(2), 2, "classes"):
        for _ in track(range(3), 3, "images"):
            clock[0] += 1
            seen.add(*cell)
    assert any("classes: 1 of 2 (images: 2 of 3)" in state for state in seen)
    assert len(cell) == 1 and "classes: 2 of 2, 0:00:06" in cell[0]
    list(track("ab", 2, "after"))
    assert len(cell) == 2


def test_a_bar_of_many_quick_items_is_drawn_five_times_a_second(clock, cell, monkeypatch):
    drawn = []
    monkeypatch.setattr("klarsicht.ground.progress._NotebookDisplay.redraw", lambda bar: drawn.append(bar))
    list(track(range(1000), 1000, "images"))
    assert len(drawn) == 1  # by a clock that stands still only the end


def test_ipython_in_a_terminal_is_no_notebook(capsys, clock, monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    for _ in track(range(2), 2, "images"):
        clock[0] += 5
    assert "images: 2 of 2" in capsys.readouterr().err


def test_libraries_that_load_for_seconds_are_announced_where_no_command_does(capsys, monkeypatch):
    """A clock of its own, as above: the first line after a fifth of a second."""
    monkeypatch.setattr("klarsicht.ground.progress.MIN_SECONDS", 0.2)
    thresholds, said = gc.get_threshold(), ""
    with announce_loading():
        for _ in range(250):
            time.sleep(0.02)
            if said := said + capsys.readouterr().err:
                break
    assert said == "loading: 0:00:00 so far\n" and gc.get_threshold() == thresholds
    with end_silences(60, 60), announce_loading():  # a command says it by its own clock
        time.sleep(0.3)
    assert capsys.readouterr().err == ""
