"""Rows that people read."""

from equint.pages.explanation import changes, layers, totals

NOISE = {"total": 20.04, "weights": 21.0, "activations": 30.0, "clips": None}
FOUND = {
    "predicted": {"before": NOISE, "after": {**NOISE, "total": 25.0}},
    "layers": [
        {"name": n, "limit": "weights", "share": s, "before": {}, "after": {"weights": 40.0}}
        for n, s in (("small", 0.1), ("large", 0.6), ("middle", 0.3))
    ],
    "changes": [{"change": "16-bit activations", "at": "x", "gain": 1.26}],
}


def test_totals() -> None:
    _, columns, rows = totals(FOUND)
    assert len(columns) == len(rows[0])
    assert rows[0] == ("plain grids", "20.0", "21.0", "30.0", "–")


def test_layers_that_matter_most_come_first_and_the_rest_is_announced() -> None:
    title, columns, rows = layers(FOUND, 2)
    assert [row[0] for row in rows] == ["large", "middle"]
    assert rows[0][2:] == ("– → 40.0", "– → –", "– → –", "60.0 %")
    assert len(columns) == len(rows[0])
    assert title.startswith("2 of 3 layers")
    assert len(layers(FOUND, None)[2]) == 3


def test_changes() -> None:
    assert changes(FOUND)[2] == [("16-bit activations", "x", "+1.3 dB")]
