"""Common parts of all REST models: names in camelCase, strict types, times, pages, lists in a query."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

_FORMS: dict[str, str] = {}


def form(pattern: str, words: str) -> str:
    """Returns the pattern and registers the error text for values that do not match it."""
    _FORMS[pattern] = words
    return pattern


def in_words(pattern: str) -> str:
    """Returns the error text for a pattern."""
    return _FORMS.get(pattern, f"must match pattern {pattern!r}")


NO_CONTROLS = form(r"^[^\x00-\x1f\x7f]*$", "must have no control characters")
MAX_PER_PAGE = 1000
DEFAULT_PER_PAGE = 20

Text = Annotated[str, StringConstraints(max_length=256, pattern=NO_CONTROLS)]
"""A line of text, possibly empty."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=NO_CONTROLS)]
"""A non-empty line of text; the limits are those of livekit-server for a room name."""


class Body(BaseModel):
    """The JSON of a request. An unknown field is refused: a misspelt `blockedNumbers` would block nobody."""

    model_config = ConfigDict(alias_generator=to_camel, strict=True, extra="forbid", frozen=True)


class Query(BaseModel):
    """A request's query; everything in it comes as text."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)


class Answer(BaseModel):
    """The JSON of an answer. What is not known is null, never left out."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class Message(Answer):
    message: str


class Problem(Answer):
    """Why a request was refused."""

    message: str
    code: str = Field(description="The kind of error, for programs", examples=["invalid_argument", "not_found"])


class PageQuery(Query):
    page: int = Field(1, ge=1, le=1_000_000, description="The first is 1")
    per_page: int = Field(DEFAULT_PER_PAGE, ge=1, le=MAX_PER_PAGE)

    @property
    def offset(self) -> int:
        """The position of the page's first item."""
        return (self.page - 1) * self.per_page


class PageInfo(Answer):
    current_page: int
    per_page: int
    last_page: int
    total: int


def page_info(query: PageQuery, total: int) -> PageInfo:
    """Returns the page data for a list of `total` items."""
    last_page = max(1, -(-total // query.per_page))
    return PageInfo(current_page=query.page, per_page=query.per_page, last_page=last_page, total=total)


def listed(text: str | None) -> frozenset[str]:
    """The members of a comma-separated list."""
    return frozenset(part.strip() for part in (text or "").split(",") if part.strip())


BodyT = TypeVar("BodyT")
QueryT = TypeVar("QueryT")


class Asked(Generic[BodyT, QueryT]):
    """A request that has been authorised and checked."""

    def __init__(self, path: dict[str, str], body: BodyT, query: QueryT) -> None:
        self.path = path
        """The variable parts of the path, by name."""
        self.body = body
        self.query = query
