"""Flags from the fields of a model: what the help shows, what arrives, and what a wrong value answers."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field

from adapters.console import Parser
from adapters.errors import ConfigError
from adapters.options import add_flags, from_flags, given


def known(voice: str) -> str:
    if voice != "formal":
        raise ConfigError(f"there is no voice {voice}", "use formal")
    return voice


class Run(BaseModel):
    epochs: int = Field(default=3, ge=1, le=1000, description="passes over the emails, 100 % of them")
    rate: float | None = Field(default=None, gt=0, lt=1, description="learning rate")
    limit: int | None = Field(default=None, ge=1)
    folder: Path = Path("here")
    dtype: Literal["auto", "float32"] = "auto"
    rslora: bool = False
    sample_epochs: tuple[int, ...] = ()
    allow: frozenset[Literal["a", "b"]] = frozenset()
    voice: Annotated[str, AfterValidator(known)] = "formal"
    key: str = Field(default="none", json_schema_extra={"flag": False, "environment": "KEY"})


def run(*arguments: str, environment: dict[str, str] | None = None) -> Run:
    parser = Parser(prog="run")
    add_flags(parser, Run)
    return from_flags(Run, parser.parse_args(arguments), environment or {})


def test_the_help_has_the_description_the_default_and_the_choices_of_a_field():
    parser = Parser(prog="run")
    add_flags(parser, Run)
    shown = " ".join(parser.format_help().split())
    assert "--epochs N passes over the emails, 100 % of them (1 to 1,000; default: 3)" in shown
    assert "--rate N learning rate (" in shown
    assert "--dtype {auto,float32}" in shown
    assert "--key" not in shown


def test_the_help_leaves_defaults_out_that_come_from_elsewhere():
    parser = Parser(prog="run")
    add_flags(parser, Run, overrides=True)
    assert "default" not in parser.format_help()


def test_a_field_without_a_default_needs_its_flag_unless_values_come_from_elsewhere():
    class Key(BaseModel):
        name: str

    strict, lenient = Parser(prog="run"), Parser(prog="run")
    add_flags(strict, Key)
    add_flags(lenient, Key, overrides=True)
    with pytest.raises(ConfigError, match="--name"):
        strict.parse_args([])
    assert given(Key, lenient.parse_args([])) == {}


def test_what_is_typed_has_the_type_of_its_field_and_the_rest_its_default():
    typed = run("--rate", "1e-3", "--rslora", "--sample-epochs", "1, 10", "--allow", "a,b,", "--folder", "there")
    assert typed == Run(
        rate=1e-3, rslora=True, sample_epochs=(1, 10), allow=frozenset("ab"), folder=Path("there"), epochs=3
    )


def test_only_what_was_typed_is_given():
    parser = Parser(prog="run")
    parser.add_argument("--other")
    add_flags(parser, Run)
    assert given(Run, parser.parse_args(["--epochs", "5", "--other", "x"])) == {"epochs": "5"}


def test_a_variable_counts_unless_it_is_empty():
    assert run(environment={"KEY": "sesame"}).key == "sesame"
    assert run(environment={"KEY": ""}).key == "none"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--epochs", "0"], "--epochs must be 1 to 1,000, got 0"),
        (["--epochs", "many"], "--epochs must be a whole number, 1 to 1,000, got many"),
        (["--epochs", ""], "--epochs must be a whole number, 1 to 1,000, got nothing"),
        (["--rate", "1"], "--rate must be above 0 and below 1, got 1"),
        (["--rate", "x"], "--rate must be a number, above 0 and below 1, got x"),
        (["--limit", "0"], "--limit must be at least 1, got 0"),
        (["--dtype", "int8"], "--dtype must be one of auto, float32, got int8"),
        (["--sample-epochs", "1,x"], "--sample-epochs must be a whole number, got x"),
        (["--allow", "a,z"], "--allow must be one of a, b, got z"),
        (["--epochs", "0", "--limit", "0"], "--epochs must be 1 to 1,000, got 0; --limit must be at least 1, got 0"),
    ],
)
def test_a_wrong_value_is_a_sentence_with_what_it_must_be(arguments: list[str], error: str):
    with pytest.raises(ConfigError) as refused:
        run(*arguments)
    assert str(refused.value) == error
    assert refused.value.hint


def test_a_validator_of_the_model_has_its_own_error_and_hint():
    with pytest.raises(ConfigError, match="no voice angry") as refused:
        run("--voice", "angry")
    assert refused.value.hint == "use formal"
