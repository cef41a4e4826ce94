"""One operation of the REST API: its handler and its entry in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel

from connector.api.rest.models import Asked

Handler = Callable[[Asked[Any, Any]], Awaitable[BaseModel]]


class Access(Enum):
    TOKEN = "token"
    """A token that may create rooms; see `connector.api.auth`."""
    OPEN = "open"
    """No authorisation: the content is public."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `refusals`: error statuses besides 400, 401 and 403. `gives`: JSON pointer to the id in
    its answer, which the paths below this one need (an OpenAPI link)."""

    method: str
    path: str
    summary: str
    handler: Handler
    answer: type[BaseModel]
    status: int = 200
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    refusals: tuple[int, ...] = ()
    access: Access = Access.TOKEN
    description: str = ""
    gives: str = ""
