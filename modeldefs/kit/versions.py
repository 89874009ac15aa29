"""Older versions of a model, as authors declare them.

    class UserV1(Version, of=User, number=1):
        \"\"\"As it was before: cities were written in capitals.\"\"\"

Today a version can differ from the head in what its values mean, not in its columns: a version
with fields or lenses of its own is refused when the definitions are loaded. One that is declared
is served by the head's own code, under its own number, until it is retired.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from modeldefs.kit.errors import DefinitionError


class Version:
    """An older version of a model that clients may still use."""

    of: ClassVar[Any]
    number: ClassVar[int]

    def __init_subclass__(cls, *, of: Any = None, number: int = 0) -> None:
        super().__init_subclass__()
        cls.of, cls.number = of, number


def declared_versions(
    found: Iterable[type[Version]], models: dict[str, Any]
) -> dict[str, tuple[type[Version], ...]]:
    """Return the older versions of each model that has some, oldest first.

    Args:
        found: The classes that the definitions declare.
        models: The models by name.

    Raises:
        DefinitionError: One cannot be served.
    """
    by_model: dict[str, dict[int, type[Version]]] = {}
    for version in found:
        model = version.of
        where = f"{version.__module__}.{version.__name__}"
        if getattr(model, "__name__", "") not in models or models[model.__name__] is not model:
            raise DefinitionError(
                "version-of-nothing",
                f"is of {model!r}, which is no model of the definitions",
                fix="write `class UserV1(Version, of=User, number=1)`",
                where=where,
            )
        head = model.shard.version
        if not (type(version.number) is int and 1 <= version.number < head):
            raise DefinitionError(
                "bad-version",
                f"has the number {version.number!r}; {model.__name__} itself is {head}",
                fix="number older versions from 1 to below `version` of `class Shard`",
                where=where,
            )
        _refuse_shape(version, where)
        known = by_model.setdefault(model.__name__, {})
        if version.number in known:
            raise DefinitionError(
                "doubled-name",
                f"is version {version.number} of {model.__name__}, and so is "
                f"{known[version.number].__name__}",
                fix="drop one of them",
                where=where,
            )
        known[version.number] = version
    return {name: tuple(of[n] for n in sorted(of)) for name, of in sorted(by_model.items())}


def _refuse_shape(version: type[Version], where: str) -> None:
    own = [name for name in vars(version) if not name.startswith("__")]
    own += [name for name in vars(version).get("__annotations__", ()) if name not in own]
    differing = sorted(set(own) - {"of", "number"})
    if differing:
        raise DefinitionError(
            "version-with-shape",
            f"declares {', '.join(differing)}: versions with columns of their own are not served",
            fix="keep the columns in the model, and only the docstring in the version",
            where=where,
        )
