"""How a key of a config is declared: its default, range and meaning in one place, as a field of a dataclass.

how        the key says how a stage runs and not what it makes: a change makes nothing anew
baseline   the value that fingerprints leave out; the default, unless the default was changed later (see `made_by`)
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from blurdiff.errors import UserError
from blurdiff.runtime.files import sha256_file

REQUIRED = object()


def key(default: object, schema: dict, text: str = "", how: bool = False, **extra: object) -> Any:
    """A field: its default (REQUIRED if it has none), its JSON schema, what it means, and the marks above."""
    metadata = {"schema": schema, "text": text, "how": how, **extra}
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def integer(minimum: int, maximum: int | None = None) -> dict:
    return {"type": "integer", "minimum": minimum} | ({} if maximum is None else {"maximum": maximum})


def number(**limits: float) -> dict:
    return {"type": "number", **limits}


def one_of(*names: str) -> dict:
    return {"enum": list(names)}


def nullable(schema: dict) -> dict:
    """The schema, or null."""
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    return {**schema, "type": [schema["type"], "null"]}


def list_of(items: dict, empty: bool = True, unique: bool = False) -> dict:
    limits = ({} if empty else {"minItems": 1}) | ({"uniqueItems": True} if unique else {})
    return {"type": "array", "items": items, **limits}


@dataclass(frozen=True)
class Section(Mapping):
    """Keys of a config: attributes for code that knows their names, a mapping for code that goes over them."""

    def __getitem__(self, name: str) -> Any:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)


def check_names(table: Collection[str], names: Collection[str], where: str) -> None:
    """Raise AssertionError, at import, when a table of entries and the names that a config may use differ."""
    if lacking := sorted(set(names) - set(table)):
        raise AssertionError(f"{where} lacks {', '.join(lacking)} of config/settings.py; put entries above check_names")
    if more := sorted(set(table) - set(names)):
        raise AssertionError(f"config/settings.py lacks {', '.join(more)} of {where}; add the name to what it lists")


def made_by(section: Section, *without: str) -> dict:
    """What of a section decides a result and differs from the defaults: what is fingerprinted and compared.

    Keys that say how a stage runs are left out, as are those in `without`. A key that is added with its default thus
    changes no fingerprint. Whoever changes a default gives the field its old one as `baseline`: what was made with the
    old default, and left it out, keeps its fingerprint, and what is made with the new one gets another.
    """
    return {
        field.name: getattr(section, field.name)
        for field in dataclasses.fields(section)
        if not field.metadata["how"] and field.name not in without and getattr(section, field.name) != baseline(field)
    }


def files_of(section: Section) -> dict[str, str]:
    """The keys of a section that name a file, such as a table, and its path."""
    usual = {field.name: field.metadata.get("is_file_unless") for field in dataclasses.fields(section)}
    return {name: section[name] for name, names in usual.items() if names and section[name] not in names}


def digests_of(section: Section) -> dict[str, str]:
    """The SHA-256 of each of these files; UserError when one cannot be read."""
    digests = {}
    for name, path in files_of(section).items():
        try:
            digests[name] = sha256_file(path)
        except OSError as error:
            raise UserError(f"process.{name}: cannot read {path}: {error.strerror}") from error
    return digests


def baseline(field: dataclasses.Field) -> object:
    """The value of a field that fingerprints leave out; REQUIRED where there is none."""
    if "baseline" in field.metadata:
        return field.metadata["baseline"]
    return default_of(field)


def default_of(field: dataclasses.Field) -> object:
    """The default of a field; REQUIRED where there is none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED if field.default is dataclasses.MISSING else field.default
