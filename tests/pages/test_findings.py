"""What is said of many places is true of each."""

from equint.hardware.lint import Finding, Findings
from equint.pages.findings import kinds, lines


def found(at: str, what: str, level: str = "warning") -> Finding:
    return Finding(level, "a-rule", at, what, "it is slow", "mend it", "the manual", "2025-01-31", 0.125)


def test_places_of_which_the_same_is_true_share_a_line() -> None:
    (line,) = kinds(Findings("t", 1.0, tuple(found(at, "odd") for at in "abcde")))
    assert line == (
        "warning a-rule, 5 places [a, b, c, and 2 more] (62.5 % of all multiply-accumulates): odd: it is slow; mend it "
        "(the manual, 2025-01-31)"
    )


def test_what_differs_is_said_of_each_place() -> None:
    findings = (found("a", "Add is odd"), found("b", "Mul is odd"), found("c", "Div is odd"), found("d", "Exp is odd"))
    (line,) = kinds(Findings("t", 1.0, findings))
    assert "Add is odd [a], Mul is odd [b], Div is odd [c], and 1 more: it is slow" in line


def test_one_is_no_plural() -> None:
    errors = (found("a", "odd", "error"), found("b", "odd"), found("c", "odd"))
    assert next(lines(Findings("t", 1.0, errors), "f.onnx")).startswith("f.onnx for t: 1 error, 2 warnings; ")
    assert next(lines(Findings("t", 1.0, (), ruled=False), "f.onnx")).startswith("f.onnx for t: not judged")
