"""True boxes of pictures, from COCO's JSON, VOC's XML or a plain table of boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ..errors import InvalidCard, UnusableData
from ..ir.model import Array
from .boxes import read_json


@dataclass(frozen=True)
class Truth:
    """What is on one picture: corners (n, 4) in its pixels, classes (n,), and which boxes are crowds (n,)."""

    corners: Array
    classes: Array
    crowds: Array


def read_boxes(path: Path, labels: Sequence[str] = ()) -> dict[str, Truth]:
    """True boxes by the pictures' file names.

    COCO's JSON has images, annotations and categories; categories become class numbers by their names in `labels`
    or else in the order of their ids. A plain table is {file: {"boxes": [[class, x1, y1, x2, y2], …]}}, or
    {file: [[x1, y1, x2, y2], …]} where there is one class. A folder holds VOC's XML, whose class names must be among
    the labels and whose difficult objects do not count.

    Raises:
        EquintError: unreadable, none of these, or a category that is not among the labels.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "boxes.json"
        >>> _ = path.write_text('{"a.png": [[1, 2, 3, 4]]}')
        >>> read_boxes(path)["a.png"].corners.tolist()
        [[1.0, 2.0, 3.0, 4.0]]
    """
    if path.is_dir():
        return _voc(path, labels)
    table = read_json(path)
    if not isinstance(table, dict) or not table:
        raise UnusableData(f"{path}: neither COCO's JSON nor a table of boxes by file name")
    try:
        if {"images", "annotations", "categories"} <= table.keys():
            return _coco(path, table, labels)
        return {file: _plain(entry) for file, entry in table.items()}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UnusableData(
            f"{path}: neither COCO's JSON nor boxes [class, x1, y1, x2, y2] or [x1, y1, x2, y2] ({error!r})"
        ) from error


def _plain(entry: Any) -> Truth:
    rows = np.asarray(entry["boxes"] if isinstance(entry, dict) else entry, float)
    rows = rows.reshape(0, 5) if rows.size == 0 else rows
    if rows.ndim != 2 or rows.shape[1] not in (4, 5):
        raise ValueError(f"rows of shape {rows.shape}")
    classes = rows[:, 0].astype(int) if rows.shape[1] == 5 else np.zeros(len(rows), int)
    return Truth(_ordered(rows[:, -4:]), classes, np.zeros(len(rows), bool))


def _ordered(corners: Array) -> Array:
    if np.any(corners[:, 2:] < corners[:, :2]) or not np.all(np.isfinite(corners)):
        raise ValueError("a box whose right or lower edge comes first")
    return corners


def _coco(path: Path, table: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Truth]:
    categories = sorted(table["categories"], key=lambda c: int(c["id"]))
    stranger = next((c["name"] for c in categories if labels and c["name"] not in labels), None)
    if stranger is not None:
        raise InvalidCard(f"{path}: category {stranger} is not among the card's labels")
    number = {c["id"]: labels.index(c["name"]) if labels else k for k, c in enumerate(categories)}
    rows: dict[Any, list[tuple[list[float], int, bool]]] = {image["id"]: [] for image in table["images"]}
    for a in table["annotations"]:
        x, y, w, h = a["bbox"]
        rows[a["image_id"]].append(([x, y, x + w, y + h], number[a["category_id"]], bool(a.get("iscrowd", 0))))
    return {
        Path(image["file_name"]).name: Truth(
            _ordered(np.asarray([c for c, _, _ in rows[image["id"]]], float).reshape(-1, 4)),
            np.asarray([k for _, k, _ in rows[image["id"]]], int),
            np.asarray([crowd for _, _, crowd in rows[image["id"]]], bool),
        )
        for image in table["images"]
    }


def _voc(folder: Path, labels: Sequence[str]) -> dict[str, Truth]:
    files = sorted(folder.glob("*.xml"))
    if not files:
        raise UnusableData(f"{folder}: no .xml files of true boxes in it")
    return dict(_voc_picture(file, labels) for file in files)


def _voc_picture(file: Path, labels: Sequence[str]) -> tuple[str, Truth]:
    """VOC's pixels are counted from 1, and a box holds its last ones."""
    try:
        root = ElementTree.parse(file).getroot()
        objects = root.findall("object")
        names = [str(o.findtext("name")) for o in objects]
        edges = [[float(o.findtext(f"bndbox/{e}") or "") for e in ("xmin", "ymin", "xmax", "ymax")] for o in objects]
        corners = _ordered(np.asarray(edges, float).reshape(-1, 4) - (1, 1, 0, 0))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise UnusableData(f"{file}: not a readable XML file of VOC's ({error})") from error
    stranger = next((name for name in names if name not in labels), None)
    if stranger is not None:
        raise InvalidCard(f"{file}: class {stranger} is not among the card's labels; list the classes there")
    classes = np.asarray([labels.index(name) for name in names], int)
    difficult = np.asarray([o.findtext("difficult") == "1" for o in objects], bool)
    return Path(root.findtext("filename") or f"{file.stem}.jpg").name, Truth(corners, classes, difficult)
