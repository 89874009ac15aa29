"""The contracts that endpoints had, and what today's breaks of each.

A contract is written down when the definitions are recorded and is never edited; what is found
about it anew each time is what today's contract breaks of it. Fronts and nodes are told of the
newest few, as they answer clients that were made for one of them.
"""

from __future__ import annotations

from dispatcher_site.registry.models import Contract
from modeldefs.kit.catalog import Catalog
from modeldefs.kit.contracts import breaks, contract_hash, contract_of
from modeldefs.wire.versions import KnownContracts

OLDER_TOLD_MAX = 8  # of one endpoint in one version
BREAKS_TOLD_MAX = 5
BREAK_LENGTH_MAX = 200


def record_contracts(catalog: Catalog) -> None:
    """Write down today's contracts, and what they break of the older ones."""
    current = {each.hash: each for each in Contract.objects.filter(is_current=True)}
    for endpoint in catalog.endpoints.values():
        for number in catalog.numbers(endpoint.model.__name__):
            document = contract_of(catalog, endpoint, number)
            known = contract_hash(document)
            if known in current:
                continue
            older = Contract.objects.filter(endpoint=endpoint.name, version=number)
            older.update(is_current=False)
            Contract.objects.update_or_create(
                hash=known,
                defaults={"is_current": True, "breaks": []},
                create_defaults={
                    "endpoint": endpoint.name, "version": number, "document": document
                },
            )  # fmt: skip
            for each in older.filter(is_current=False):
                found = [line[:BREAK_LENGTH_MAX] for line in breaks(each.document, document)]
                each.breaks = found[:BREAKS_TOLD_MAX]
                each.save(update_fields=["breaks"])


def current_contracts() -> dict[str, dict[str, str]]:
    """Return the hash of today's contract by endpoint and version."""
    found: dict[str, dict[str, str]] = {}
    for contract in Contract.objects.filter(is_current=True).defer("document"):
        found.setdefault(contract.endpoint, {})[str(contract.version)] = contract.hash
    return found


def known_contracts() -> dict[str, KnownContracts]:
    """Return what fronts and nodes are told: where there are older contracts than today's."""
    older: dict[str, dict[str, tuple[str, ...]]] = {}
    rows = Contract.objects.filter(is_current=False).order_by("-created", "hash")
    for name, version, known, found in rows.values_list("endpoint", "version", "hash", "breaks"):
        told = older.setdefault(f"{name}@{version}", {})
        if len(told) < OLDER_TOLD_MAX:
            told[known] = tuple(found)
    current = {
        f"{name}@{version}": known
        for name, version, known in Contract.objects.filter(is_current=True).values_list(
            "endpoint", "version", "hash"
        )
    } if older else {}  # fmt: skip
    return {
        place: KnownContracts(current[place], told)
        for place, told in sorted(older.items())
        if place in current
    }
