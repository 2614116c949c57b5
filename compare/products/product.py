"""What the comparison needs from a product's public API and page; each orchestrator has its own file in this folder."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module, util
from typing import Any, NamedTuple

from bench.rig import Rig
from rundbt import api
from switchyard import pipeline
from switchyard.errors import StackError


class Key(NamedTuple):
    """A dbt node as people know it: its kind (dbt's resource type) and its name."""

    kind: str
    name: str


@dataclass(frozen=True)
class Thing:
    """An object that a product's API returns, with the name of a dbt node.

    Attributes:
        key: the node.
        content: everything that the API returns about it.
        owners: its owners, by the API.
        before: the nodes directly before it, by the API.
    """

    key: Key
    content: Any
    owners: Any = None
    before: frozenset[Key] = frozenset()


class Picture(NamedTuple):
    """A page to take a picture of.

    Attributes:
        what: ``graph``, ``node`` or ``log``.
        url: its address.
        steps: what to do there first, in order: ``see`` or ``click`` with a Playwright selector, or ``press`` with a key.
    """

    what: str
    url: str
    steps: tuple[tuple[str, str], ...]


class Begun(NamedTuple):
    """A run that was started with a product's own means.

    Attributes:
        way: how a person starts it there.
        green: whether it has succeeded; called once it has ended.
    """

    way: str
    green: Callable[[], bool]


class PageRequest(NamedTuple):
    """An HTTP request to a product's public API."""

    method: str
    path: str
    body: Any = None


class Product(ABC):
    """One orchestrator's public API and pages.

    Args:
        rig: the stack on which it is up.
        name: the orchestrator's name.
    """

    read: PageRequest  # reads runs
    write: PageRequest  # a write that changes nothing
    alert: str = ""  # how the product sends an alert
    roles: str = ""  # its roles in this setting, if its API does not list them
    guard: str = ""  # what checks the password if the product does not
    # Of the sign-in page: selectors and what to type there; empty if the browser signs in with HTTP basic authentication.
    fields: tuple[tuple[str, str], ...] = ()

    def __init__(self, rig: Rig, name: str) -> None:
        self.orchestrator = rig.orchestrators[name]
        self.url = self.orchestrator.url(rig.settings.values).rstrip("/")
        self.password = rig.settings[self.orchestrator.login_key or ""]
        self.job = pipeline.known_job(rig.settings, None)

    def sign_in(self, password: str) -> dict[str, str]:
        """The headers for a password: HTTP basic authentication, if the product's API has no own sign-in.

        Raises:
            rundbt.api.ApiError: it is refused.
        """
        return api.basic_auth(f"admin:{password}")

    @cached_property
    def signed_in(self) -> dict[str, str]:
        """The headers for the right password."""
        return self.sign_in(self.password)

    @abstractmethod
    def described(self) -> list[str]:
        """The paths, or queries, in the API's own description."""

    @abstractmethod
    def things(self) -> list[Thing]:
        """What it shows of the newest run, and of the project."""

    def alerts(self) -> bool:
        """Whether a run that fails from now on sends a message."""
        return True

    @abstractmethod
    def reload(self) -> bool:
        """Have it reload the project, like the button on its page; False if it has no such button, and a run is needed."""

    @abstractmethod
    def boxes(self) -> set[str]:
        """The names of the models in its current graph."""

    @abstractmethod
    def build(self, model: str) -> Begun:
        """Start a build of one model with its tests, as its page does.

        Args:
            model: the name.

        Raises:
            StackError: it has no such model, or does not start.
        """

    @abstractmethod
    def pictures(self, run: str, name: str) -> list[Picture]:
        """The pages of a failed run.

        Args:
            run: the address of the run's page.
            name: the name of the failed model.
        """


def paths(product: Product, *places: str) -> list[str]:
    """The paths in the OpenAPI descriptions at ``places``; a place without a description has none."""
    names: list[str] = []
    headers = product.signed_in
    for place in places:
        with suppress(api.ApiError, ValueError):  # ValueError: not JSON, but a page that is served at any path
            names += api.request("GET", f"{product.url}{place}", headers=headers)["paths"]
    return names


def product(rig: Rig, name: str) -> Product:
    """The product that is up on ``rig``.

    Raises:
        StackError: there is no file for it here.
    """
    module = f"{__package__}.{name}"
    if util.find_spec(module) is None:
        raise StackError("The comparison does not know this product's API.")
    made: Product = import_module(module).PRODUCT(rig, name)
    return made


def texts(content: Any) -> Iterator[str]:
    """Every text in an answer."""
    if isinstance(content, str):
        yield content
        if content.startswith(("{", "[")):
            try:
                yield from texts(json.loads(content))
            except ValueError:
                return
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield str(key)
            yield from texts(value)
    elif isinstance(content, list | tuple):
        for one in content:
            yield from texts(one)
