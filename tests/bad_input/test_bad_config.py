"""Every key of a config with a wrong type, a value out of range and a misspelt name: one line that names the key.

The cases come from the schema, so that a new key is covered by being there.
"""

import copy
import datetime
import json
from collections.abc import Iterator

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from blurdiff import cli
from blurdiff.config import runs as config
from blurdiff.config import schema as config_schema
from blurdiff.errors import UserError

VALID = {
    "datasets": {"rooms": {"synthetic": "bedroom"}},
    "training": {"iterations": 10},
    "runs": [{"dataset": "rooms", "f_type": "none"}],
    "sampler_study": {"samplers": [{"sampler": "ddim"}]},
}
VALUES = {
    "integer": [7],
    "number": [0.5],
    "string": ["some text", "2e-4"],
    "boolean": [True],
    "null": [None],
    "array": [[[]]],
    "object": [{"some": "key"}],
}
TYPES = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    type(None): "null",
    list: "array",
    dict: "object",
}


def places(schema: dict, path: tuple = ()) -> Iterator[tuple[tuple, dict]]:
    """(path, schema) of every key, of the items of lists, and of a data set."""
    for name, part in schema.get("properties", {}).items():
        yield (*path, name), part
        yield from places(part, (*path, name))
    if isinstance(schema.get("additionalProperties"), dict):
        yield (*path, "rooms"), schema["additionalProperties"]
        yield from places(schema["additionalProperties"], (*path, "rooms"))
    if "items" in schema:
        yield (*path, 0), schema["items"]
        yield from places(schema["items"], (*path, 0))


PLACES = {config_schema.key_name(path): (path, part) for path, part in places(config_schema.config_schema())}
NAMED = [key for key, (path, _) in PLACES.items() if isinstance(path[-1], str) and path != ("datasets", "rooms")]


def with_value(path: tuple, value: object) -> dict:
    """The valid config with one value put in; sections and lists on the way are made."""
    raw = copy.deepcopy(VALID)
    node = raw
    for part, following in zip(path, path[1:], strict=False):
        empty = [] if isinstance(following, int) else {}
        if isinstance(part, int) and part == len(node):
            node.append(empty)
        elif not isinstance(part, int):
            node.setdefault(part, empty)
        node = node[part]
    if isinstance(path[-1], int):
        node[path[-1] :] = [value]
    else:
        node[path[-1]] = value
    return raw


def wrong_values(part: dict) -> Iterator[object]:
    """Values of every type that is not allowed, and of the right one those that are out of range."""
    types = [part["type"]] if isinstance(part.get("type"), str) else part.get("type", [])
    if "enum" in part:
        types = {TYPES[type(value)] for value in part["enum"]} - {"string"}
    for name, values in VALUES.items():
        if name not in types and not (name == "integer" and "number" in types):
            yield from values
    for limit, beyond in {"minimum": -1, "exclusiveMinimum": 0, "maximum": 1, "exclusiveMaximum": 0}.items():
        if limit in part:
            yield part[limit] + beyond
    if "number" in types:
        yield from (float("nan"), float("inf"), -float("inf"))
    if "string" in types and part.get("minLength"):
        yield ""
    if "pattern" in part:
        yield from ("", "a/b", "../a", "-a", "a b", "ä")
    if "minItems" in part:
        yield []
    if "minProperties" in part:
        yield {}
    if part.get("uniqueItems"):
        items = part["items"]
        value = "twice" if items["type"] == "string" else items.get("minimum", 1)
        yield [value, value]


@pytest.fixture
def refusal(tmp_path, capsys):
    """A function that gives the one line in which the command line refuses a config."""
    path = tmp_path / "c.yaml"

    def call(raw: object) -> str:
        path.write_text(json.dumps(raw))  # JSON is YAML, and quicker
        status = cli.main(["settings", "--config", str(path)])
        out, err = capsys.readouterr()
        assert status == 1, out
        assert out == "" and err.count("\n") == 1 and err.endswith("\n")
        assert err.startswith(f"error: {path}: "), err
        assert list(tmp_path.iterdir()) == [path]
        return err.removeprefix(f"error: {path}: ").rstrip()

    return call


def test_the_walk_finds_what_is_deep_in_the_schema():
    assert len(PLACES) > 120
    expected = {"resolution", "datasets.rooms.training.threads", "network.multipliers[0]", "runs[0].sampling.eta",
                "sampler_study.samplers[0].grid", "seeds[0]", "figures.figure1[0]"}  # fmt: skip
    assert expected <= PLACES.keys()
    assert config.check_config(VALID)


@pytest.mark.parametrize("key", PLACES)
def test_wrong_types_and_values_out_of_range(refusal, key):
    path, part = PLACES[key]
    values = list(wrong_values(part))
    assert len(values) >= 4
    for value in values:
        line = refusal(with_value(path, value))
        assert line.startswith(key), f"{value!r}: {line}"
        # After the key what is wrong, or, in a section, which key of it.
        assert line[len(key)] in ".:[", f"{value!r}: {line}"
        assert len(line) < 400


@pytest.mark.parametrize("key", [key for key, (_, part) in PLACES.items() if part.get("format") == "path"])
def test_home_and_variables_are_filled_in_wherever_a_path_stands(refusal, monkeypatch, key):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DISK", "/disk")
    path = PLACES[key][0]
    raw = with_value(path, "~/$DISK/${DISK}_2/c")
    raw["datasets"]["rooms"] |= {"synthetic": None} if path[:2] == ("datasets", "rooms") else {}
    node = config.check_config(raw)
    for part in path:
        node = node[part]
    assert node == "/home/me//disk//disk_2/c"
    for unknown in ("$NO_SUCH/c", "${NO_SUCH}/c", "~no-such-user/c"):
        line = refusal(with_value(path, unknown))
        assert line.startswith(f"{key}: {unknown}") and ("NO_SUCH is not set" in line or "~no-such-user" in line)


def test_every_key_that_is_a_path_is_one():
    paths = {key.rpartition(".")[2] for key, (_, part) in PLACES.items() if part.get("format") == "path"}
    assert paths == {"results", "store", "lmdb", "folder", "zip", "weights", "f_table", "power"}


@pytest.mark.parametrize("text", ["2024_01", "1e3", "1.5", "on", "0x10"])
def test_text_that_reads_as_a_number_is_told_how_to_be_written(tmp_path, capsys, text):
    path = tmp_path / "c.yaml"
    written = yaml.safe_dump({**VALID, "results": "HERE"})
    path.write_text("\ufeff" + written.replace("HERE", f'"{text}"'), encoding="utf-8")
    assert config.load_config(path)["results"] == text
    path.write_text(written.replace("HERE", text))
    if cli.main(["settings", "--config", str(path)]):
        error = capsys.readouterr().err
        assert "results: must be text" in error and "quotes" in error and "file" in error
    else:
        assert text == "1e3"  # text in YAML


@pytest.mark.parametrize("key", NAMED)
def test_misspelt_names(refusal, key):
    path, part = PLACES[key]
    name, siblings = path[-1], [other.rpartition(".")[2] for other in NAMED]
    misspelt = {name + name[-1], name[:-2] + name[-1] + name[-2], name.upper(), f"{name} ", f"{name}_"} - set(siblings)
    for other in misspelt:
        raw = with_value(path, copy.deepcopy(part.get("default")))
        node = raw
        for step in path[:-1]:
            node = node[step]
        node[other] = node.pop(name)
        line = refusal(raw)
        assert line.startswith(f"{config_schema.key_name((*path[:-1], other))}: unknown key"), line
        if other in (name + name[-1], f"{name}_") and len(name) > 4:
            assert f"did you mean {name}?" in line


def complete_or_refused(load, *arguments: object) -> None:
    """What any input may lead to: a config that resolves, or one line."""
    try:
        checked = load(*arguments)
    except UserError as error:
        assert str(error) and "Traceback" not in str(error)
        return
    assert json.loads(json.dumps([settings.as_dict() for settings in config.resolve_runs(checked)]))


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(10**308, 10**320), st.floats(), st.text(max_size=8),
    st.binary(max_size=4), st.dates(), st.sampled_from(["none", "log", "quartic", "bedroom", "rooms", "ddpm", "2e-4"]),
)  # fmt: skip
WORDS = sorted({path[-1] for path, _ in PLACES.values() if isinstance(path[-1], str)})
KEYS = st.one_of(
    st.sampled_from(WORDS), st.text(max_size=4), st.integers(), st.dates(), st.none(), st.binary(max_size=2)
)
DOCUMENTS = st.recursive(
    SCALARS, lambda part: st.one_of(st.lists(part, max_size=4), st.dictionaries(KEYS, part, max_size=4)), max_leaves=12
)


@settings(max_examples=150)
@given(DOCUMENTS)
def test_any_document_is_accepted_or_refused(document):
    complete_or_refused(config.check_config, document)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(sorted(PLACES)), DOCUMENTS), min_size=1, max_size=2))
def test_any_value_in_any_place_is_accepted_or_refused(changes):
    raw = copy.deepcopy(VALID)
    for key, value in changes:
        node = raw
        for part in PLACES[key][0][:-1]:
            try:
                node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
            except (LookupError, TypeError):
                return
        if isinstance(node, dict):
            node[PLACES[key][0][-1]] = value
        elif isinstance(node, list):
            node[:] = [value]
    complete_or_refused(config.check_config, raw)


@settings(max_examples=150)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_any_file_is_accepted_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    complete_or_refused(config.load_config, path)


@settings(max_examples=100)
@given(st.text(alphabet="{}[]:-,&*!|>'\"#%@` \n\tabr01.~?<=", max_size=40))
def test_any_yaml_syntax_is_accepted_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "syntax.yaml"
    path.write_text(text)
    complete_or_refused(config.load_config, path)


ODD = {
    "a date as a key": "2022-01-01: 1",
    "bytes as a key": "? !!binary aGVsbG8=\n: 1",
    "a list in itself": "runs: &a [*a]",
    "a section in itself": "training: &a {iterations: *a}",
    "nested without end": "runs: " + "[" * 3_000,
    "sections without end": "{runs: " * 5_000,
    "a number of 5000 digits": "resolution: 1" + "0" * 5000,
    "the same in hexadecimal": "resolution: 0x" + "f" * 5000,
    "a number beyond double precision": yaml.safe_dump(with_value(("training", "iterations"), 10**400)),
    "the same as a date": yaml.safe_dump(with_value(("resolution",), datetime.date(2022, 1, 1))),
    "code": "runs: !!python/object/apply:os.system ['touch canary']",
    "a class": "runs: !!python/name:os.system",
}


@pytest.mark.parametrize("case", ODD)
def test_odd_documents_are_one_line(case, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(ODD[case])
    assert cli.main(["settings", "--config", "c.yaml"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: c.yaml") and error.count("\n") == 1 and len(error) < 500
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]  # nothing ran
