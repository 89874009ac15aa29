"""Between texts and an author's Python: the arguments of a mutation, its result, its errors."""

from __future__ import annotations

import logging
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.core.exceptions import ObjectDoesNotExist, ValidationError

from modeldefs.kit.declared_problems import may_raise
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.parameters import ParameterSpec
from modeldefs.wire import calls, problems

logger = logging.getLogger(__name__)


def python_arguments(endpoint: Endpoint[Any, Any], call: calls.Call) -> dict[str, Any]:
    """Return the arguments of the author's function; absent parameters keep their defaults."""
    arguments: dict[str, Any] = {}
    values = iter(call.values)
    for bit, spec in enumerate(endpoint.parameters):
        if call.mask >> bit & 1:
            arguments[spec.name] = _python(spec, next(values))
    return arguments


def _python(spec: ParameterSpec, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [spec.kind.to_python(text) for text in value]
    return spec.kind.to_python(value)


def called(endpoint: Endpoint[Any, Any], arguments: dict[str, Any]) -> Any:
    """Return what the author's function returns.

    Raises:
        DefinitionFault: It raised a problem that the endpoint does not declare.
    """
    try:
        return endpoint.function(**arguments)
    except problems.Problem as raised:
        if may_raise(endpoint.options.problems, raised):
            raise
        logger.exception(
            "write.undeclared-problem", extra={"endpoint": endpoint.name, "code": raised.code}
        )
        raise problems.DefinitionFault(
            f"the mutation refused with {raised.code}, which it does not declare"
        ) from raised


def plain(value: Any) -> Any:
    """Return a mutation's result as what JSON can carry.

    Raises:
        DefinitionError: It holds something else.
    """
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(
        value, bool | int | float | str | Decimal | date | datetime | timedelta | UUID
    ):
        return value
    raise DefinitionError(
        "unsupported-result", f"a mutation returned {type(value).__name__}", fix="return a row"
    )


class OutsideRowFilter(Exception):
    """The function writes, or reads, what its caller's row filter does not let it have."""


def problem_of(fault: Exception, endpoint: Endpoint[Any, Any]) -> problems.Problem:
    """Return what a client is told of an error that the function raised."""
    if isinstance(fault, OutsideRowFilter):
        return problems.Forbidden(str(fault))
    if isinstance(fault, ObjectDoesNotExist):
        return problems.NotFound()
    if isinstance(fault, ValidationError):
        return problems.InvalidRequest("; ".join(fault.messages))
    logger.error("write.definition-fault", extra={"endpoint": endpoint.name}, exc_info=fault)
    return problems.DefinitionFault()
