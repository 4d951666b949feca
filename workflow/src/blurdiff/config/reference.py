"""The JSON schema and the tables of config/README.md, written from settings.py: `python -m blurdiff.config.reference`.

Both are committed, for editors and for people; a test compares them with what this module makes.
"""

import dataclasses
import json
import re
import sys
from pathlib import Path

import yaml

from blurdiff.config.keys import REQUIRED, Section, default_of
from blurdiff.config.schema import config_schema
from blurdiff.config.settings import FIGURES, SECTIONS, DatasetConfig, StudyConfig

ROOT = Path(__file__).resolve().parents[4]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
README = ROOT / "config" / "README.md"
TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true, false", "array": "list"}
TABLES: dict[str, type[Section]] = {"datasets": DatasetConfig, **SECTIONS, "sampler_study": StudyConfig}


class _Plain(yaml.SafeDumper):
    """Repeated parts are written out, not referred to."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def schema_text() -> str:
    """The content of workflow/schemas/config.schema.yaml."""
    head = "# Every key of a config, for editors and other machines. Made by `python -m blurdiff.config.reference`.\n"
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **config_schema()}
    return head + yaml.dump(document, Dumper=_Plain, sort_keys=False, width=120, default_flow_style=None)


def table(name: str) -> str:
    """A Markdown table: one row for each key of a section, or for each figure."""
    if name == "figures":
        rows: list[tuple[str, ...]] = [
            ("key", "shows"),
            ("---", "---"),
            *((f"`{key}`", text) for key, text in FIGURES.items()),
        ]
    else:
        rows = [("key", "type", "range", "default", "meaning"), ("---",) * 5]
        rows += [row(field) for field in dataclasses.fields(TABLES[name])]
        if name == "datasets":
            rows.append(("`training`", "section", "", "{}", "keys of `training` that differ for this data set"))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def row(field: dataclasses.Field) -> tuple[str, ...]:
    """(key, type, range, default, meaning) of a field."""
    schema, default = field.metadata["schema"], default_of(field)
    if "enum" in schema:
        kind, range_ = "name", ", ".join(f"`{name}`" for name in schema["enum"] if name is not None)
    else:
        types = schema.get("type", "array")
        kind = schema.get("format") or TYPES[types if isinstance(types, str) else types[0]]
        word = f", `{schema['pattern'].strip('^$')}`" if "number" in types and "pattern" in schema else ""
        range_ = limits(schema) + word
        if kind == "list":
            kind = f"list of {TYPES.get(schema.get('items', {}).get('type'), 'section')}s"
            range_ = limits(schema.get("items", {}))
    shown = "required" if default is REQUIRED else shown_default(default)
    return f"`{field.name}`", kind, range_, shown, field.metadata["text"]


def limits(schema: dict) -> str:
    """The range of a number in words."""
    low = f"{schema['minimum']:,}" if "minimum" in schema else ""
    low = f"> {schema['exclusiveMinimum']}" if "exclusiveMinimum" in schema else low
    high = f"{schema['maximum']:,}" if "maximum" in schema else ""
    high = f"< {schema['exclusiveMaximum']}" if "exclusiveMaximum" in schema else high
    if low and high:
        return f"{low} … {high}"
    return low if low.startswith(">") else f"≥ {low}" if low else high


def shown_default(default: object) -> str:
    """A default as one writes it in YAML."""
    if isinstance(default, list) and default and isinstance(default[0], dict):
        return ", ".join(" ".join(map(str, entry.values())) for entry in default)
    text = "null" if default is None else json.dumps(default) if not isinstance(default, str) else default
    if isinstance(default, float) and "e" in text:
        text = f"{default:.10f}".rstrip("0")
    return f"`{text}`"


def with_tables(readme: str) -> str:
    """The text of config/README.md with its tables, which stand between two comments each, made anew."""

    def replace(match: re.Match) -> str:
        if match[2] not in (*TABLES, "figures"):
            raise ValueError(f"{README}: there is no table {match[2]!r}")
        return f"{match[1]}\n\n{table(match[2])}\n\n{match[3]}"

    return re.sub(r"(<!-- begin generated: (\w+) -->)\n.*?\n(<!-- end generated -->)", replace, readme, flags=re.S)


def main() -> None:
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{SCHEMA}\n{README}", file=sys.stderr)


if __name__ == "__main__":
    main()
