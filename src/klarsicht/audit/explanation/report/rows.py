"""Rows of the tables of pictures from which the page of a run is made."""

from __future__ import annotations

from typing import TypedDict


class PictureRow(TypedDict):
    """Columns that every table of pictures has: the output of a class, the path of an image, and its picture's name."""

    target: int
    path: str
    picture: str


class ViewRow(PictureRow):
    """Row of the table `views`: an image in the scatter plot of a cluster, `x` and `y` in units of the plot, its row of
    the run, and whether it is in the cluster; `picture` is without extension, and empty where the image has none."""

    row: int
    member: bool
    x: float
    y: float


class EvidenceRow(PictureRow):
    """Row of the table `evidence`: a picture of an image with a detected artifact (`member`), or of another; `artifact`
    is its number in its class, from 1."""

    row: int
    member: bool
    artifact: int


class SeenPictureRow(PictureRow):
    """Row of the table `seen`: a picture of an image of a group that no verdict names, by the group's number in
    `seen.json`, from 0."""

    group: int


class PartPictureRow(PictureRow):
    """Row of the table `profiles`: a picture of an image of which only one part was kept."""

    part: str


class ExceptionPictureRow(PictureRow):
    """Row of the table `exceptions`: a picture of an image that does not follow the surroundings of its class
    (`exceptional`), or of one that does, with its own places outlined."""

    exceptional: bool
