"""What is measured span by span hangs on the data, and on nothing else."""

import numpy as np
import pytest

import equint
from crews import Backwards
from equint.demo import data_path, model_path
from equint.errors import UnusableData
from equint.samples.card import Card
from equint.samples.spans import Span
from equint.scoring.bench import Bench, Source
from equint.scoring.metrics import evaluate
from equint.scoring.segmentation import Confusion
from equint.scoring.tally import Tally

CARD = Card("gray", (0.0,), (16.0,))


@pytest.fixture(scope="module")
def result() -> equint.Result:
    return equint.quantize(model_path(), "cwq", input=CARD)


@pytest.mark.parametrize("limit", [None, 256, 300])
def test_whoever_measures_finds_the_same(limit: int | None, result: equint.Result) -> None:
    told = list[int]()
    alone = evaluate(result.proto, data_path(), CARD, model_path(), limit=limit)
    shared = evaluate(
        result.proto,
        data_path(),
        CARD,
        model_path(),
        limit=limit,
        crew=Backwards(),
        progress=lambda *a: told.append(a[0]),
    )
    assert shared == alone  # to the last bit
    assert told[-1] == alone["samples"] == (limit or 500)


def test_sums_are_those_of_all_samples(result: equint.Result) -> None:
    """The same as from all outputs at once, up to rounding."""
    from equint.runtime.session import Session

    with np.load(data_path()) as file:
        x = np.moveaxis(file["x"].reshape(-1, 8, 8, 1), -1, 1).astype(np.float32) / 16
    a, b = (Session(m).run(x)["output"].astype(np.float64) for m in (model_path(), result.proto))
    found = evaluate(result.proto, data_path(), CARD, model_path())
    assert found["sqnr_db"] == pytest.approx(10 * np.log10(np.square(a).sum() / np.square(b - a).sum()), abs=1e-4)
    assert found["agreement"] == 100 * np.mean(a.argmax(1) == b.argmax(1))


def test_what_spans_found_adds_up() -> None:
    rng = np.random.default_rng(5)
    first, second, whole = Confusion("y"), Confusion("y"), Confusion("y")
    for part in (first, second):
        scores, mask = rng.normal(size=(1, 3, 4, 4)), rng.integers(0, 3, (4, 4))
        for each in (part, whole):
            each.add({"y": scores}, [(mask, "a.png")])
    first.merge(second)
    np.testing.assert_array_equal(first.counts, whole.counts)
    second.merge(Confusion("y"))
    assert second.counts.sum() == 16


def test_a_span_behind_the_end_holds_nothing() -> None:
    source = Source(lambda start: iter([(np.ones((2, 1)), None)] if start == 0 else []))
    bench = Bench(lambda x: {"y": np.asarray(x)}, ("y",), {"x": ("N", 1)}, source, "here", "features", {})
    measured = bench.measuring()
    assert [measured(Span(k, k + 256)).samples for k in (0, 256)] == [2, 0]


def test_values_that_are_not_finite_name_the_data() -> None:
    source = Source(lambda start: iter([(np.full((2, 1), np.nan), None)]))
    bench = Bench(lambda x: {"y": np.asarray(x)}, ("y",), {"x": ("N", 1)}, source, "here.npz", "features", {})
    with pytest.raises(UnusableData, match=r"here\.npz: holds values that are not finite"):
        bench.measuring()(Span(0, 256))


def test_counts_add_up() -> None:
    first, second, whole = Tally(), Tally(), Tally()
    rng = np.random.default_rng(2)
    for part in (first, second):
        scores, labels, clean = rng.normal(size=(6, 9)), rng.integers(0, 9, 6), rng.normal(size=(6, 9))
        for each in (part, whole):
            each.samples += 6
            each.add_labels(scores, labels)
            each.add_reference({"y": scores}, {"y": clean})
    first.merge(second)
    assert first == whole
    assert first.results()["samples"] == 12
