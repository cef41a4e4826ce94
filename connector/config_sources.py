"""Reads the settings: built-in defaults, then a YAML file, then the environment, then flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import AliasChoices, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsError,
    YamlConfigSettingsSource,
)

from connector.config import Settings
from connector.errors import Internal
from connector.spelling import nearest


class ConfigError(Internal):
    """The settings are invalid; the message names each key and its problem."""


def load_settings(file: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Reads and checks the settings. Raises ConfigError; its message lists all problems."""
    chosen = _by_alias({key: value for key, value in (flags or {}).items() if value is not None})

    class FromSources(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, SettingsFile(settings_cls, yaml_file=file)

    try:
        return FromSources(**chosen)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None
    except SettingsError as error:
        # Its message quotes the field; pydantic has no attribute for it.
        names = [name for name in Settings.model_fields if f'"{name}"' in str(error)]
        raise ConfigError(f"{' or '.join(map(_alias, names)).upper()}: must be JSON, a map of names") from None


class SettingsFile(YamlConfigSettingsSource):
    """The YAML file of an operator. Its keys are the names of the settings, or their variables in the environment. In
    contrast to pydantic's source, a file that does not exist and an unknown key are errors."""

    def _read_files(self, files: Any, deep_merge: bool = False) -> dict[str, Any]:
        # pydantic ignores everything that is no regular file; `--config <(decrypt settings)` is a pipe.
        return {} if files is None else self._read_file(files)

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        try:
            loaded: object = super()._read_file(file_path)
        except OSError as error:
            raise ConfigError(f"cannot read {file_path}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file_path} is not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(loaded, dict):
            raise ConfigError(f"{file_path} must be a mapping of keys to values")
        values = {str(key).lower().removeprefix("connector_"): value for key, value in loaded.items()}
        unknown = sorted(set(values) - set(Settings.model_fields))
        if unknown:
            raise ConfigError(f"{file_path} has keys that do not exist: {', '.join(map(_with_the_nearest, unknown))}")
        return _by_alias(values)


def setting_names() -> frozenset[str]:
    """Names of all settings in the environment."""
    return frozenset(_alias(name).upper() for name in Settings.model_fields)


def _by_alias(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces field names by the aliases that pydantic accepts. Field names must not be accepted as well: pydantic
    would then read PORT and HOST from the environment, which other programs set."""
    return {_alias(name): value for name, value in values.items()}


def _alias(name: str) -> str:
    alias = Settings.model_fields[name].validation_alias
    assert isinstance(alias, AliasChoices)
    return str(alias.choices[0])


def _with_the_nearest(key: str) -> str:
    meant = nearest(key, Settings.model_fields)
    return f"{key} ({meant}?)" if meant else key


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(str(part) for part in problem["loc"]).upper()
        text = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {text}" if where else text)
    return "; ".join(lines)
