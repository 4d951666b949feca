"""YAML in, and the JSON schema of a config over it: one clear line for what it forbids, defaults for what is absent.

`blurdiff.config.runs` is what others use.
"""

import contextlib
import copy
import dataclasses
import difflib
import json
import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from blurdiff.config.keys import REQUIRED, Section, default_of, integer, list_of, one_of
from blurdiff.config.settings import (
    FIGURES,
    NAME,
    PATH,
    PRESETS,
    SECTIONS,
    SEED,
    TEXT,
    TRUTH,
    DatasetConfig,
    ProcessConfig,
    SamplerConfig,
    StudyConfig,
    TrainingConfig,
)
from blurdiff.errors import UserError
from blurdiff.runtime.files import expand_path

TYPE_NAMES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "array": "a list",
    "object": "a section of keys",
    "boolean": "true or false",
    "null": "null",
}
SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML that refuses a key given twice, where PyYAML keeps the last one silently."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    loader.flatten_mapping(node)
    result = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in result:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key} stands there twice", key_node.start_mark
            )
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: str | Path) -> object:
    """The content of a YAML (or JSON) file; raises UserError with file and line when it cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        with contextlib.suppress(ValueError):
            return json.loads(text)  # JSON first: in YAML its 5e-05 would be text
        return yaml.load(text, _Loader)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    # TypeError: a list or section as a key; RecursionError: nesting without end.
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(
            f"{path}{where}: {getattr(error, 'problem', None) or error}; this is not a YAML config"
        ) from error


def section_schema(section: type[Section], partial: bool = False, **more: dict) -> dict:
    """The schema of a section; `partial`: only what differs is given, so that nothing is missing or filled in."""
    fields = dataclasses.fields(section)
    properties = {field.name: {**field.metadata["schema"]} for field in fields} | more
    for field in fields:
        if not partial and default_of(field) is not REQUIRED:
            properties[field.name]["default"] = default_of(field)
    required = [field.name for field in fields if default_of(field) is REQUIRED and not partial]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        **({"required": required} if required else {}),
        **({"partial": True} if partial else {}),
    }


@cache
def config_schema() -> dict:
    """The JSON schema of a config. Where only what differs is given, an object has `partial: true`."""
    sections = {name: section_schema(section) for name, section in SECTIONS.items()}
    for name, schema in sections.items():
        if name != "training":
            schema["default"] = {}
    sampler = section_schema(SamplerConfig, partial=True)
    study = section_schema(StudyConfig)
    study["properties"]["samplers"] |= {
        "type": "array", "minItems": 1, "items": {**sampler, "required": ["sampler"]}
    }  # fmt: skip
    training = section_schema(TrainingConfig, partial=True)
    dataset = section_schema(DatasetConfig, training={**training, "default": {}})
    run = section_schema(
        ProcessConfig,
        partial=True,
        dataset={"type": "string"},
        name=NAME,
        preset=one_of(*PRESETS),
        training=training,
        sampling=sampler,
    )
    figure = list_of({"type": "string"}, empty=False, unique=True)
    return {
        "title": "A blurdiff experiment",
        "type": "object",
        "additionalProperties": False,
        "required": ["datasets", "training", "runs"],
        "properties": {
            "results": {**PATH, "default": "results"},
            "store": {**PATH, "default": ".blurdiff/store"},
            "resolution": {**integer(4, 1024), "default": 64},
            "datasets": {"type": "object", "minProperties": 1, "propertyNames": NAME, "additionalProperties": dataset},
            **sections,
            "sampler_study": {**study, "default": {}},
            "runs": {**list_of({**run, "required": ["dataset"]}, empty=False)},
            "seeds": {**list_of(SEED, empty=False, unique=True), "default": [0]},
            "figures": {
                "type": "object",
                "additionalProperties": False,
                "properties": dict.fromkeys(FIGURES, figure),
                "default": {},
            },
        },
    }


@cache
def settings_schema() -> dict:
    """The schema of a run's resolved settings; sections may be absent."""
    properties = config_schema()["properties"]
    resolution = {name: value for name, value in properties["resolution"].items() if name != "default"}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["run", "dataset", "seed", "resolution", "training"],
        "properties": {
            **{"run": TEXT, "dataset": TEXT, "label": TEXT, "synthetic": {**TRUTH, "default": False}},
            **{"seed": SEED, "resolution": resolution},
            **{name: properties[name] for name in SECTIONS},
        },
    }


def key_name(path: Iterable) -> str:
    """`runs[1].f_N` from ("runs", 1, "f_N")."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def number_hint(text: str) -> str:
    """How a number that YAML read as text should be written; empty when it is none."""
    try:
        value = float(text)
    except ValueError:
        return ""
    mantissa, _, exponent = text.strip().lower().partition("e")
    if not exponent or not math.isfinite(value):
        return f": write {text.strip()} without quotes"
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    exponent = exponent if exponent[0] in "+-" else f"+{exponent}"
    return f": write {mantissa}e{exponent}"


def closest(word: object, choices: Iterable) -> str:
    """` (did you mean …?)`, or nothing."""
    found = difflib.get_close_matches(str(word), [str(choice) for choice in choices], n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def _explain(error: Any) -> tuple[str, str]:
    """A schema violation as (key, what is wrong with it and what would be right)."""
    path, value, rule, limit = error.absolute_path, error.instance, error.validator, error.validator_value
    shown = json.dumps(value, ensure_ascii=False)[:60]
    if rule == "additionalProperties":
        known = error.schema["properties"]
        unknown = next(name for name in value if name not in known)
        return key_name([*path, unknown]), f"unknown key{closest(unknown, known)}"
    if rule == "required":
        return key_name([*path, next(name for name in limit if name not in value)]), "is missing"
    if rule == "type":
        types = [limit] if isinstance(limit, str) else limit
        hint = number_hint(value) if isinstance(value, str) and {"number", "integer"} & set(types) else ""
        if "string" in types and isinstance(value, bool | int | float):
            hint = ": write it in quotes, in a config file (after --config quotes do not help)"
        return key_name(path), f"must be {' or '.join(TYPE_NAMES[name] for name in types)}, not {shown}{hint}"
    if rule == "enum":
        choices = ["null" if choice is None else choice for choice in limit]
        return key_name(path), f"{shown} is not one of {', '.join(choices)}{closest(value, choices)}"
    if rule == "pattern" and "number" in error.schema["type"]:  # a number, or a word in place of it
        hint = number_hint(value) or closest(value, [limit.strip("^$")])
        return key_name(path), f"must be a number or {limit.strip('^$')}, not {shown}{hint}"
    if rule == "pattern":
        return key_name(path), f"{shown} is no name: letters, digits and . _ + - only, a letter or digit first"
    if rule == "maxLength":
        return key_name(path), f"{value[:30]}… has {len(value)} characters, {limit} at most; give a shorter one"
    if rule in ("minItems", "minLength", "minProperties"):
        return key_name(path), "must not be empty"
    if rule == "uniqueItems":
        return key_name(path), f"{shown} holds something twice"
    return key_name(path), f"must be {SIGNS[rule]} {limit:g}, not {shown}" if rule in SIGNS else error.message


def validate(value: object, schema: dict, name: str) -> None:
    """Raise UserError, one line that begins with `name` and the key, for the first violation of the schema."""
    import jsonschema  # here, because it takes a tenth of a second

    # What is missing last: a misspelt key is both unknown and missing, and it is the misspelling that helps.
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(value), key=lambda e: e.validator == "required")
    if errors:
        key, text = _explain(errors[0])
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise UserError(f"{name}: {key}: {text}{more}" if key else f"{name}: {text}{more}")


def completed(value: Any, schema: dict, name: str, fill: bool = True, path: tuple = ()) -> Any:
    """A valid value with defaults and `~` of paths filled in, keys in the schema's order, numbers of the schema's type.

    1 and 1.0 must not make two fingerprints of one model, so that a number becomes a float and an integer an int.
    Raises UserError for numbers that are not finite, and paths that cannot be filled in.
    """
    if isinstance(value, dict):
        fill = fill and not schema.get("partial")
        properties = schema.get("properties", {})
        result = {}
        for key, part in properties.items():
            if key in value or (fill and "default" in part):
                item = value[key] if key in value else copy.deepcopy(part["default"])
                result[key] = completed(item, part, name, fill, (*path, key))
        for key in value:  # in the user's order
            if key not in properties:
                result[key] = completed(value[key], schema["additionalProperties"], name, fill, (*path, key))
        return result
    if isinstance(value, list):
        return [completed(item, schema["items"], name, fill, (*path, k)) for k, item in enumerate(value)]
    if isinstance(value, str) and schema.get("format") == "path":
        try:
            return expand_path(value)
        except UserError as error:
            raise UserError(f"{name}: {key_name(path)}: {error}") from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an integer beyond what a float can hold
        finite = False
    if not finite:
        raise UserError(f"{name}: {key_name(path)}: must be finite, not {str(value)[:20]}")
    types = schema.get("type", ())
    return float(value) if "number" in types else int(value) if "integer" in types else value
