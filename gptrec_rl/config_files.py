"""Configurations from TOML files and `--set` overrides to frozen pydantic models, and back.

Every command reads its settings through `read_config`, and a run folder's resolved `config.toml` is what `write_config`
wrote. TOML has no null: the word "none" stands for it wherever a field may be None.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gptrec_rl.errors import InputError

M = TypeVar("M", bound=BaseModel)
Table = Mapping[str, Any]

MAX_FILE_BYTES = 2**14

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def read_config(model: type[M], file: Path | None, overrides: Sequence[str] = (), base: Table | None = None) -> M:
    """Read a configuration; later sources win, and tables are merged key by key.

    Args:
        model: what to read, a frozen pydantic model, possibly of models.
        file: a TOML file with the fields that differ from the defaults.
        overrides: `ppo.clip=0.1`: the value is a TOML literal, or else taken as a string.
        base: values that the file and the overrides build on, such as a preset's.

    Raises:
        InputError: an unreadable file, an unknown key (the nearest right one is named) or a value out of range.
    """
    try:
        return _read(model, file, overrides, base or {})
    except RecursionError:
        raise InputError(f"the configuration {file or '--set'} is nested too deeply; write TABLE.KEY = VALUE") from None


def _read(model: type[M], file: Path | None, overrides: Sequence[str], base: Table) -> M:
    layers: list[tuple[str, Table]] = [("the preset", base)]
    if file is not None:
        layers.append((str(file), _read_toml(file)))
    layers += [("--set", _parse_override(override)) for override in overrides]
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, table in layers:
        checked = _check_keys(model, model, table, source)
        values = merged(values, checked)
        sources |= dict.fromkeys(_leaf_names(checked), source)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError("\n".join(_explain(model, details, sources) for details in error.errors())) from None


def write_config(config: BaseModel, path: Path) -> None:
    """Write every field, defaults included, so that `read_config` gives an equal configuration; atomic."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(tomli_w.dumps(_with_none_as_word(config.model_dump(mode="json"))), encoding="utf-8")
    os.replace(temporary, path)


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
        raise InputError(f"the configuration {file} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"the configuration {file} isn't valid TOML: {error}") from error


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"--set {override}: write KEY=VALUE, such as --set ppo.clip=0.1")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for part in reversed(key.split(".")):
        value = {part: value}
    table: dict[str, Any] = value
    return table


def _check_keys(
    root: type[BaseModel], model: type[BaseModel], table: Table, source: str, at: str = ""
) -> dict[str, Any]:
    """Return the table with "none" read as None, once every key is known to be a field."""
    checked: dict[str, Any] = {}
    for key, value in table.items():
        field = model.model_fields.get(key)
        if field is None:
            nearest = difflib.get_close_matches(at + key, list(_field_names(root)), n=1, cutoff=0.0)[0]
            raise InputError(f"{source}: there is no setting {at + key}; did you mean {nearest}?")
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
