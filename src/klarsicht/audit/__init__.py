"""Audit: which images does a model get right for the wrong reason, and how is it relieved of that?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from klarsicht.audit.results.ranking import Ranking


def rank(run: str | Path) -> Ranking:
    """The classes of a finished run, most suspect first; `to_pandas` makes a table of them.

    Raises:
        InputError: no run in this folder.
        StoreError: the run has not been ranked yet.
    """
    from klarsicht.audit.results import ranking

    return ranking.read_ranking(run)
