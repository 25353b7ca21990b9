"""Configurations from TOML files and `--set` overrides to frozen pydantic models, and back.

Every command reads its settings through `read_config`, and a run folder's resolved `config.toml` is what `write_config`
wrote. TOML has no null: the word "none" stands for it wherever a field may be None.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gptrec_rl.errors import InputError, StorageError, may_pass, nearest
from gptrec_rl.files import write_atomically

M = TypeVar("M", bound=BaseModel)
Table = Mapping[str, Any]
Change = str | Table
"""`ppo.clip=0.1` as `--set` takes it, or a table of values that have their types."""

MAX_FILE_BYTES = 2**14

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def read_config(model: type[M], file: Path | None, overrides: Sequence[Change] = (), base: Table | None = None) -> M:
    """Read a configuration; later sources win, and tables are merged key by key, over the model's own defaults.

    Args:
        model: what to read, a frozen pydantic model, possibly of models.
        file: a TOML file with the fields that differ from the defaults.
        overrides: `ppo.clip=0.1`: the value is a TOML literal, or else taken as a string, as it always is for a setting
            that is a text; or a table, of values that have their types.
        base: values that the file and the overrides build on, such as a preset's.

    Raises:
        InputError: an unreadable file, an unknown key (the nearest right one is named) or a value out of range.
    """
    try:
        return _read(model, file, overrides, base or {})
    except RecursionError:
        raise InputError(f"the configuration {file or '--set'} is nested too deeply; write TABLE.KEY = VALUE") from None


def _read(model: type[M], file: Path | None, overrides: Sequence[Change], base: Table) -> M:
    layers: list[tuple[str, Table]] = [("the preset", base)]
    if file is not None:
        layers.append((str(file), _read_toml(file)))
    for change in overrides:
        layers.append(("--set", _parse_override(model, change)) if isinstance(change, str) else ("the options", change))
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, table in layers:
        checked = _check_keys(model, model, table, source)
        values = merged(values, checked)
        sources |= dict.fromkeys(_leaf_names(checked), source)
    try:
        return model.model_validate(_completed(model, values))
    except ValidationError as error:
        raise InputError("\n".join(_explain(model, details, sources) for details in error.errors())) from None


def write_config(config: BaseModel, path: Path) -> None:
    """Write every field, defaults included, so that `read_config` gives an equal configuration; atomic."""
    write_atomically(path, tomli_w.dumps(_with_none_as_word(config.model_dump(mode="json"))))


def merged(below: Table, above: Table) -> dict[str, Any]:
    """Return one table in which the upper one's values win, key by key."""
    values = dict(below)
    for key, value in above.items():
        both_tables = isinstance(value, Mapping) and isinstance(values.get(key), Mapping)
        values[key] = merged(values[key], value) if both_tables else value
    return values


def changed_settings(before: Table, after: Table, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Name each setting that two dumped configurations have differently, with both values; None where one lacks it."""
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from changed_settings(old, new, f"{at}{name}.")
        elif old != new:
            yield at + name, old, new


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
        return tomllib.loads(content.decode())
    except OSError as error:
        kind = StorageError if may_pass(error) else InputError
        raise kind(f"the configuration {file} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"the configuration {file} isn't valid TOML: {error}") from error


def nested(key: str, value: Any) -> dict[str, Any]:
    """Return the table in which a dotted key has a value."""
    for part in reversed(key.split(".")):
        value = {part: value}
    table: dict[str, Any] = value
    return table


def _parse_override(model: type[BaseModel], override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"--set {override}: write KEY=VALUE, such as --set ppo.clip=0.1")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    return nested(key, text if not isinstance(value, str) and _is_text(model, key) else value)


def _is_text(model: type[BaseModel], key: str) -> bool:
    """Tell whether a setting is a text, so that a folder called 2024-05-01 is no date."""
    part: type[BaseModel] | None = model
    field: FieldInfo | None = None
    for name in key.split("."):
        field = part.model_fields.get(name) if part is not None else None
        part = _part_model(field) if field is not None else None
    kinds = (field.annotation, *get_args(field.annotation)) if field is not None else ()
    return str in kinds or any(str in get_args(kind) for kind in kinds)


def _completed(model: type[BaseModel], values: Table) -> dict[str, Any]:
    """Return the values over the defaults of the parts that they give some of: what isn't set stays the model's own."""
    completed = dict(values)
    for name, value in values.items():
        field = model.model_fields[name]
        part = _part_model(field)
        if part is not None and isinstance(value, Mapping):
            own = field.default.model_dump() if isinstance(field.default, BaseModel) else {}
            completed[name] = merged(own, _completed(part, value))
    return completed


def _check_keys(
    root: type[BaseModel], model: type[BaseModel], table: Table, source: str, at: str = ""
) -> dict[str, Any]:
    """Return the table with "none" read as None, once every key is known to be a field."""
    checked: dict[str, Any] = {}
    for key, value in table.items():
        field = model.model_fields.get(key)
        if field is None:
            meant = nearest(at + key, _field_names(root))
            raise InputError(f"{source}: there is no setting {at + key}; did you mean {meant}?")
        part = _part_model(field)
        if part is not None and isinstance(value, Mapping):
            checked[key] = _check_keys(root, part, value, source, f"{at}{key}.")
        else:
            checked[key] = None if value == "none" and NoneType in get_args(field.annotation) else value
    return checked


def _part_model(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a field that holds one, also when the field may be None."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _field_names(model: type[BaseModel], at: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        part = _part_model(field)
        if part is None:
            yield at + name
        else:
            yield from _field_names(part, f"{at}{name}.")


def _leaf_names(table: Table, at: str = "") -> Iterator[str]:
    for key, value in table.items():
        yield at + key
        if isinstance(value, Mapping):
            yield from _leaf_names(value, f"{at}{key}.")


def _explain(model: type[BaseModel], details: ErrorDetails, sources: Mapping[str, str]) -> str:
    """Return one line: where the value came from, its key, the value, what is wrong and what is allowed."""
    part: type[BaseModel] | None = model
    names: list[str] = []
    allowed = ""
    for name in details["loc"]:
        field = part.model_fields.get(str(name)) if part is not None else None
        if field is None:
            break
        names.append(str(name))
        part = _part_model(field)
        allowed = _bounds(field)
    key = ".".join(names)
    problem = details["msg"].removeprefix("Value error, ")
    if details["type"] == "missing":
        return f"the setting {key} is missing: give it in the file or by --set {key}=VALUE"
    if part is not None and details["type"] == "value_error":  # settings that contradict each other
        return f"{key}: {problem}".removeprefix(": ")
    return f"{sources[key]}: {key} = {details['input']!r}: {problem}{f' (allowed: {allowed})' if allowed else ''}"


def _bounds(field: FieldInfo) -> str:
    limits = ((sign, getattr(mark, name, None)) for mark in field.metadata for name, sign in _SIGNS.items())
    return " and ".join(f"{sign} {limit}" for sign, limit in limits if limit is not None)


def _with_none_as_word(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_none_as_word(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_none_as_word(part) for part in value]
    return "none" if value is None else value
