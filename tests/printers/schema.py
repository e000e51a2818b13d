"""A JSON Schema validator for the keywords that our schemas use; any other keyword is an error."""

from __future__ import annotations

from typing import Any

TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
SILENT = {"$schema", "title", "description", "$defs", "$id"}


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str = "$") -> list[str]:
    """What in `value` the schema does not allow."""
    found: list[str] = []
    for keyword, rule in schema.items():
        if keyword not in SILENT:
            found += _CHECKS[keyword](value, rule, schema, root, path)
    return found


def _is(value: Any, kind: str) -> bool:
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, TYPES[kind])


def _type(value: Any, rule: Any, schema: Any, root: Any, path: str) -> list[str]:
    kinds = [rule] if isinstance(rule, str) else rule
    return [] if any(_is(value, k) for k in kinds) else [f"{path}: {value!r} is no {' or '.join(kinds)}"]


def _reference(value: Any, rule: str, schema: Any, root: Any, path: str) -> list[str]:
    target = root
    for part in rule.removeprefix("#/").split("/"):
        target = target[part]
    return problems(value, target, root, path)


def _any_of(value: Any, rule: Any, schema: Any, root: Any, path: str) -> list[str]:
    tried = [problems(value, option, root, path) for option in rule]
    return [] if not all(tried) else [f"{path}: fits none of {len(rule)}: {min(tried, key=len)}"]


def _properties(value: Any, rule: Any, schema: Any, root: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return []
    return [
        p
        for name, part in rule.items()
        if name in value
        for p in problems(value[name], part, root, f"{path}.{name}")
    ]


def _additional(value: Any, rule: Any, schema: Any, root: Any, path: str) -> list[str]:
    extra = (
        set(value) - set(schema.get("properties", {})) if isinstance(value, dict) and rule is False else set()
    )
    return [f"{path}: unknown {name!r}" for name in sorted(extra)]


def _items(value: Any, rule: Any, schema: Any, root: Any, path: str) -> list[str]:
    items = value if isinstance(value, list) else []
    return [p for n, item in enumerate(items) for p in problems(item, rule, root, f"{path}[{n}]")]


def _required(value: Any, rule: Any, schema: Any, root: Any, path: str) -> list[str]:
    return [f"{path}: {name!r} is missing" for name in rule if isinstance(value, dict) and name not in value]


_CHECKS: dict[str, Any] = {
    "type": _type,
    "$ref": _reference,
    "anyOf": _any_of,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "required": _required,
    "const": lambda v, r, s, root, p: [] if v == r and type(v) is type(r) else [f"{p}: {v!r} is not {r!r}"],
    "enum": lambda v, r, s, root, p: [] if v in r else [f"{p}: {v!r} is not among {r}"],
    "minimum": lambda v, r, s, root, p: [f"{p}: {v} < {r}"] if _is(v, "number") and v < r else [],
    "maximum": lambda v, r, s, root, p: [f"{p}: {v} > {r}"] if _is(v, "number") and v > r else [],
}
