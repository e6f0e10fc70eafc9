"""A small reader of JSON schemas: enough of draft 2020-12 for `bundle.schema.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def misfit(value: Any, schema: Mapping[str, Any]) -> str | None:
    """The first thing in a JSON value that a schema does not allow, with the place where it is; None if it fits.

    Known are $ref into $defs, anyOf, const, enum, type, minimum, maximum, required, properties,
    additionalProperties and items.

    Example:
        >>> rule = {"required": ["a"], "properties": {"a": {"type": "array", "items": {"minimum": 0}}}}
        >>> misfit({"a": [1, -2]}, rule), misfit({}, rule), misfit({"a": []}, rule)
        ('a[1]: -2 is below 0', "'a' is missing", None)
    """
    return _misfit(value, schema, schema, "")


def _misfit(value: Any, rule: Mapping[str, Any], root: Mapping[str, Any], at: str) -> str | None:
    if "$ref" in rule:
        return _misfit(value, root["$defs"][rule["$ref"].removeprefix("#/$defs/")], root, at)
    if "anyOf" in rule and all(_misfit(value, one, root, at) for one in rule["anyOf"]):
        return f"{_at(at)}{_short(value)} is none of the forms that it may have"
    if "const" in rule and value != rule["const"]:
        return f"{_at(at)}{_short(value)} is not {rule['const']!r}"
    if "enum" in rule and value not in rule["enum"]:
        return f"{_at(at)}{_short(value)} is none of {', '.join(map(str, rule['enum']))}"
    if "type" in rule:
        types = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
        if not any(_is(value, name) for name in types):
            return f"{_at(at)}{_short(value)} is no {' or '.join(types)}"
    if _is(value, "number"):
        if value < rule.get("minimum", value):
            return f"{_at(at)}{_short(value)} is below {rule['minimum']}"
        if value > rule.get("maximum", value):
            return f"{_at(at)}{_short(value)} is above {rule['maximum']}"
    if isinstance(value, dict):
        return _of_object(value, rule, root, at)
    if isinstance(value, list) and "items" in rule:
        return next((m for k, v in enumerate(value) if (m := _misfit(v, rule["items"], root, f"{at}[{k}]"))), None)
    return None


def _of_object(value: Mapping[str, Any], rule: Mapping[str, Any], root: Mapping[str, Any], at: str) -> str | None:
    missing = next((key for key in rule.get("required", ()) if key not in value), None)
    if missing is not None:
        return f"{_at(at)}{missing!r} is missing"
    for key, inner in value.items():
        wanted = rule.get("properties", {}).get(key, rule.get("additionalProperties", True))
        if wanted is False:
            return f"{_at(at)}{_short(key)} is not known"
        found = None if wanted is True else _misfit(inner, wanted, root, f"{at}.{key}" if at else key)
        if found is not None:
            return found
    return None


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name])


def _at(at: str) -> str:
    return f"{at}: " if at else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
