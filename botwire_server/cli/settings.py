"""The options of a server on a command line: one for each field of `Config`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
from click.core import ParameterSource

from botwire_server.config import Config, variable
from botwire_server.environment import IN_FILE, secret

# A password that stands in an address.
_IN_URL = re.compile("//[^/@]++@")


def settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of `Config`."""
    for setting in reversed(fields(Config)):
        command = option(setting.name)(command)
    return command


def option(name: str, **more: Any) -> Callable[..., Any]:
    """The option of the field `name`; `more` is as for `click.option`."""
    setting: Field[Any] = Config.__dataclass_fields__[name]
    kind = _kind(setting, get_type_hints(Config)[name])
    named = "--" + name.replace("_", "-")
    return click.option(named, envvar=variable(name), show_envvar=True, **(kind | more))


def variables(command: click.Command) -> set[str]:
    """The environment variables that a command and those below it read."""
    found = {str(parameter.envvar) for parameter in command.params if parameter.envvar}
    if isinstance(command, click.Group):
        found = found.union(*map(variables, command.commands.values()))
    secrets = {variable(field.name) for field in fields(Config) if field.metadata.get("secret")}
    return found | {name + IN_FILE for name in found & secrets}


def origin(context: click.Context, name: str) -> str:
    """Where the value of a setting comes from: "option", "variable NAME" or "default"."""
    match context.get_parameter_source(name):
        case ParameterSource.COMMANDLINE:
            return "option"
        case ParameterSource.ENVIRONMENT:
            return f"variable {variable(name)}"
    if os.environ.get(variable(name) + IN_FILE) and variable(name) + IN_FILE in variables(
        context.command
    ):
        return f"variable {variable(name)}{IN_FILE}"
    return "default"


def shown(context: click.Context, config: Config) -> list[dict[str, Any]]:
    """Every setting with its value and where that comes from; of secrets only that they are set."""
    return [
        {
            "setting": field.name,
            "value": _printed(field, getattr(config, field.name)),
            "origin": origin(context, field.name),
        }
        for field in fields(Config)
    ]


def _printed(field: Field[Any], value: Any) -> Any:
    if not field.repr and value is not None:
        return "(set, not shown)"
    if isinstance(value, bool | int | None):
        return value
    return _IN_URL.sub("//(not shown)@", text_of(value))


def text_of(value: Any) -> str:
    """A setting's value in one line."""
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _kind(setting: Field[Any], hint: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"help": setting.metadata["help"], "default": setting.default}
    if setting.default is MISSING:
        options["default"] = None
    if hint is bool:
        return options | {"is_flag": True}
    if setting.metadata.get("secret"):
        options["callback"] = _from_file
    if get_origin(hint) is tuple:
        options |= {"multiple": True, "callback": _words}
    elif get_origin(hint) is Literal:
        options["type"] = click.Choice(get_args(hint))
    elif "least" in setting.metadata:
        options["type"] = click.IntRange(setting.metadata["least"], setting.metadata.get("most"))
    elif hint is Path:
        options["type"] = click.Path(file_okay=False, path_type=Path, resolve_path=True)
    elif hint == Path | None:
        options["type"] = click.Path(exists=True, dir_okay=False, path_type=Path)
    options["show_default"] = setting.metadata.get("shown", True) or False
    return options


def _words(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """All words; spaces or commas are between them, as a variable holds several."""
    return tuple(word for text in given for word in text.replace(",", " ").split())


def _from_file(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A secret as it was given, or out of the file that its other variable names."""
    assert parameter.name is not None
    if context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
        return value
    return secret(os.environ, str(parameter.envvar))
