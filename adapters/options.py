"""Flags of a command line from the fields of a pydantic model, so that type, default, bounds and help are written once.

`json_schema_extra` of a field may have `flag` (False: it has no flag) and `environment` (the variable that counts where
the flag is not given).
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Collection, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from adapters.errors import ConfigError, MailwrightError

Model = TypeVar("Model", bound=BaseModel)
METAVARS: dict[Any, str] = {int: "N", float: "N", Path: "DIR"}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def add_flags(
    parser: ArgumentParser, model: type[BaseModel], *, overrides: bool = False, without: Collection[str] = ()
) -> None:
    """Add a flag for each field of `model`: a switch for a bool, with a `--no-` form
    unless it is False by default; a tuple or set takes its values with commas.

    `overrides`: the values come from a file, so that no flag is required, an absent one is None and the help names no
    default. `without` are fields that have no flag.
    """
    for name, field in model.model_fields.items():
        kind = _kind(field)
        if name in without or _extra(field).get("flag") is False:
            continue
        text = (field.description or "").replace("%", "%%")
        remarks = [bounds] if (bounds := _bounds(field)) else []
        if not overrides and type(field.default) in (int, float, str):
            remarks.append(f"default: {field.default}")
        if remarks:
            text = f"{text} ({'; '.join(remarks)})".strip()
        # An absent flag leaves no trace in the arguments, so that the model's own default counts.
        options: dict[str, Any] = {"help": text, "default": None if overrides else SUPPRESS}
        if kind is bool:
            options["action"] = "store_true" if field.default is False else BooleanOptionalAction
        else:
            options["required"] = field.is_required() and not overrides
            options["metavar"] = METAVARS.get(kind)
            if get_origin(kind) is Literal:
                options["metavar"] = f"{{{','.join(get_args(kind))}}}"
            elif get_origin(kind):
                options["type"] = lambda text: [part.strip() for part in text.split(",") if part.strip()]
        parser.add_argument(_flag(name), **options)


def given(model: type[BaseModel], flags: Namespace) -> dict[str, Any]:
    """The fields of `model` whose flags were typed, as text."""
    return {name: value for name, value in vars(flags).items() if name in model.model_fields and value is not None}


def from_flags(model: type[Model], flags: Namespace, environment: Mapping[str, str], **fields: Any) -> Model:
    """A `model` of the flags that were typed, then of the environment; `fields` are the ones without either.

    Raises:
        ConfigError: a sentence for each value that cannot be.
    """
    variables = {name: _extra(field).get("environment", "") for name, field in model.model_fields.items()}
    set_there = {name: environment[variable] for name, variable in variables.items() if environment.get(variable)}
    try:
        return model(**set_there | given(model, flags) | fields)
    except ValidationError as exc:
        errors = exc.errors()
    for error in errors:
        raised = error.get("ctx", {}).get("error")
        # A validator of the model may know a better hint. The chain is cut: pydantic's own text repeats the value.
        if isinstance(raised, MailwrightError):
            raise raised from None
    wrong = {str(error["loc"][0]): error for error in errors}
    sentences = [f"{_flag(name)} {must_be(model.model_fields[name], error)}" for name, error in wrong.items()]
    raise ConfigError("; ".join(sentences), "--help shows every flag")


def must_be(field: FieldInfo, error: Mapping[str, Any]) -> str:
    """The sentence for one of pydantic's errors: `must be 1 to 16, got 0`."""
    kind = _kind(field)
    if get_origin(kind) not in (None, Literal):  # a tuple or set, of which one value is wrong
        kind = get_args(kind)[0]
    words = [bounds] if (bounds := _bounds(field)) else []
    if get_origin(kind) is Literal:
        words = [f"one of {', '.join(get_args(kind))}"]
    elif error["type"].endswith("_parsing"):
        words.insert(0, "a whole number" if kind is int else "a number")
    allowed = f"must be {', '.join(words)}" if words else error["msg"]
    return f"{allowed}, got {str(error['input'])[:80] or 'nothing'}"


def _bounds(field: FieldInfo) -> str:
    """Such as `1 to 16`, `above 0 and below 1`; empty for a field without bounds."""
    bounds = {name: f"{getattr(each, name):,}" for each in field.metadata for name in BOUNDS if hasattr(each, name)}
    if bounds.keys() == {"ge", "le"}:
        return f"{bounds['ge']} to {bounds['le']}"
    return " and ".join(f"{BOUNDS[name]} {bound}" for name, bound in bounds.items())


def _kind(field: FieldInfo) -> Any:
    """The type of a field, without None."""
    kind: Any = field.annotation
    if get_origin(kind) in (Union, UnionType):
        kind = next(each for each in get_args(kind) if each is not NoneType)
    return kind


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
