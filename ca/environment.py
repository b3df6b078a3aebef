"""Settings from environment variables, for the service and the bastion alike: strict, and told in sentences.

A variable with our prefix that is no setting is an error, since a misspelt setting that is silently ignored is how
a limit gets lost. Everything that is wrong is told at once, and no value is shown, as it may be a secret. The
environment is an argument: nothing here reads the process's own.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource

from ca.errors import BastionError

_FROM_KUBERNETES = re.compile(r"SERVICE_HOST|SERVICE_PORT(_.*)?|PORT|PORT_\d+_(TCP|UDP)(_.*)?")
"""What Kubernetes itself sets in every pod beside a Service with a name like our prefix: not ours, no mistake."""


class SettingsError(BastionError):
    """The settings cannot be used; the text says which and why, one line each."""


class Group(BaseModel):
    """A group of settings: `PREFIX_GROUP_NAME`. Immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


Chosen = TypeVar("Chosen", bound=BaseSettings)


def split(value: object) -> object:
    """A list as it stands in an environment variable: parts between commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def read(settings: type[Chosen], environment: Mapping[str, str], hint: str) -> Chosen:
    """`settings` from `environment` and nothing else. Raises `SettingsError` naming everything that is wrong.

    `hint` is the command that lists the settings.
    """
    prefix = settings.model_config.get("env_prefix", "")
    known = set(setting_names(settings))
    problems = [
        _unknown(name, known, hint)
        for name in environment
        if name.upper().startswith(prefix)
        and name.upper() not in known
        and not _FROM_KUBERNETES.fullmatch(name.upper()[len(prefix) :])
    ]
    if problems:
        raise SettingsError("\n".join(problems))
    values = _Environment(settings, environment)()
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentences(error, prefix))) from None


def setting_names(settings: type[BaseSettings]) -> Iterator[str]:
    """Every environment variable that is a setting, in the order of the class."""
    prefix = settings.model_config.get("env_prefix", "")
    for name, field in settings.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, Group):
            yield from (f"{prefix}{name}_{inner}".upper() for inner in group.model_fields)
        else:
            yield f"{prefix}{name}".upper()


class _Environment(EnvSettingsSource):
    """pydantic-settings' own reading of environment variables, from a mapping that is given."""

    def __init__(self, settings: type[BaseSettings], environment: Mapping[str, str]) -> None:
        self._given = {name.lower(): value for name, value in environment.items()}
        super().__init__(settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._given


def _unknown(name: str, known: set[str], hint: str) -> str:
    near = difflib.get_close_matches(name.upper(), sorted(known), n=1)
    return f"{name} is not a setting. " + (f"Did you mean {near[0]}?" if near else f"See: {hint}")


def _sentences(error: ValidationError, prefix: str) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        place = "_".join(str(part) for part in problem["loc"] if isinstance(part, str))
        said: Any = problem["msg"].removeprefix("Value error, ")
        yield f"{prefix}{place.upper()}: {said}" if place else str(said)
