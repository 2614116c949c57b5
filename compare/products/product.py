"""What the comparison asks of a product, by its public API and its page: one file beside this one for each orchestrator."""

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
    """A dbt node as a person knows it: its kind (dbt's resource type) and its name."""

    kind: str
    name: str


@dataclass(frozen=True)
class Thing:
    """Something that a product's API gives as a thing of its own, under the name of a dbt node.

    Attributes:
        key: the node.
        content: all that the API says of it.
        owners: what it says of who owns it.
        before: the nodes that it says come directly before.
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
        steps: what is done there first, in order: ``see`` or ``click``, and one of Playwright's selectors, or ``press`` and a key.
    """

    what: str
    url: str
    steps: tuple[tuple[str, str], ...]


class Begun(NamedTuple):
    """A run that was begun by a product's own means.

    Attributes:
        way: what a person does there for it.
        green: whether it has succeeded; asked once it has ended.
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
        rig: on which it is up.
        name: the orchestrator's.
    """

    read: PageRequest  # asks for runs
    write: PageRequest  # changes nothing
    alert: str = ""  # what the product has for an alert
    roles: str = ""  # those that it has in this setting, where its API does not list them
    guard: str = ""  # what asks for the password where the product does not
    # Of the sign-in page: a selector and what is typed there; none where the browser signs in by HTTP basic authentication.
    fields: tuple[tuple[str, str], ...] = ()

    def __init__(self, rig: Rig, name: str) -> None:
        self.orchestrator = rig.orchestrators[name]
        self.url = self.orchestrator.url(rig.settings.values).rstrip("/")
        self.password = rig.settings[self.orchestrator.login_key or ""]
        self.job = pipeline.known_job(rig.settings, None)

    def sign_in(self, password: str) -> dict[str, str]:
        """The headers that a password gives: HTTP's own, where a product has no sign-in of its API's.

        Raises:
            rundbt.api.ApiError: it is refused.
        """
        return api.basic_auth(f"admin:{password}")

    @cached_property
    def signed_in(self) -> dict[str, str]:
        """Those that the right password gives."""
        return self.sign_in(self.password)

    @abstractmethod
    def described(self) -> list[str]:
        """What the API's own description names: its paths, or its questions."""

    @abstractmethod
    def things(self) -> list[Thing]:
        """What it shows of the newest run, and of the project."""

    def alerts(self) -> bool:
        """Whether a run that fails from now on sends a message."""
        return True

    @abstractmethod
    def reload(self) -> bool:
        """Have it read the project again, as a button of its page does; False where it has none, and a run is needed."""

    @abstractmethod
    def boxes(self) -> set[str]:
        """The names of the models of its graph, as it is now."""

    @abstractmethod
    def build(self, model: str) -> Begun:
        """Begin to build one model with its tests, as its page does.

        Args:
            model: the name.

        Raises:
            StackError: it has no such model, or does not begin.
        """

    @abstractmethod
    def pictures(self, run: str, name: str) -> list[Picture]:
        """The pages of a run that failed.

        Args:
            run: the address of the run's page.
            name: of the model that failed.
        """


def paths(product: Product, *places: str) -> list[str]:
    """The paths in OpenAPI's descriptions; a place without one names nothing."""
    names: list[str] = []
    headers = product.signed_in
    for place in places:
        with suppress(api.ApiError, ValueError):  # ValueError: of a page, which is served at any path
            names += api.request("GET", f"{product.url}{place}", headers=headers)["paths"]
    return names


def product(rig: Rig, name: str) -> Product:
    """The product that is up on a rig.

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
