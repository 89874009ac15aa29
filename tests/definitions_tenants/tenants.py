"""Accounts and their invoices, each of one tenant; a price list for all; logs for nobody's filter.

Every way that a read or write can reach a row stands here once: by key, by scan, joined, in a
subquery, in an aggregate; in one statement and in Python.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Exists, F, OuterRef, Subquery, Sum

from modeldefs import (
    Document,
    Groups,
    Page,
    Reference,
    aggregate,
    count,
    highest,
    mutation,
    query,
    total,
)

LABEL = "definitions_tenants"


class Price(Reference):
    """A line of the price list, for everybody."""

    code = models.TextField(primary_key=True)
    name = models.TextField()

    class Meta:
        app_label = LABEL

    class Shard:
        shared = True


class Account(Document):
    """An account of a tenant."""

    id = models.BigIntegerField(primary_key=True)
    tenant = models.TextField()
    name = models.TextField()

    class Meta:
        app_label = LABEL

    class Shard:
        key = "id"
        filter = "tenant"


class Invoice(Document):
    """What an account owes; it lies with the account."""

    id = models.BigIntegerField(primary_key=True)
    account = models.ForeignKey(Account, models.DO_NOTHING, related_name="+")
    tenant = models.TextField()
    team = models.BigIntegerField()
    amount = models.BigIntegerField()
    price = models.ForeignKey(Price, models.DO_NOTHING, null=True, related_name="+")

    class Meta:
        app_label = LABEL

    class Shard:
        key = "account"
        colocated_with = Account
        filter = ("tenant", "team")


class Log(Document):
    """What no tenant may see: it has no filter field."""

    id = models.BigIntegerField(primary_key=True)
    text = models.TextField()

    class Meta:
        app_label = LABEL

    class Shard:
        key = "id"


MODELS = (Price, Account, Invoice, Log)

# -- reads ----------------------------------------------------------------------------------------


@query
def account(*, id: int) -> Account | None:
    """One account, by its key."""
    return Account.objects.given(id=id).one()


@query(order="id")
def accounts(*, name: str | None = None, ids: list[int] | None = None) -> Page[Account]:
    """Accounts, all or some."""
    return Account.objects.given(name__icontains=name, id__in=ids)


@query(order="id")
def not_named(*, name: str) -> Page[Account]:
    """Accounts, by what they are not."""
    return Account.objects.exclude(name=name)


@query(order="id")
def owing() -> Page[Account]:
    """Accounts with what they owe, from a subquery."""
    owed = Invoice.objects.filter(account=OuterRef("id")).values("account")
    owed = owed.annotate(sum=Sum("amount")).values("sum")
    return Account.objects.given().annotate(owed=Subquery(owed))


@query(order="id")
def debtors() -> Page[Account]:
    """Accounts that owe anything."""
    return Account.objects.filter(Exists(Invoice.objects.filter(account=OuterRef("id"))))


@query(order="id")
def spotless() -> Page[Account]:
    """Accounts that owe nothing."""
    return Account.objects.filter(~Exists(Invoice.objects.filter(account=OuterRef("id"))))


@query(order="id")
def invoices(*, account_id: int | None = None) -> Page[Invoice]:
    """Invoices with the names of their account and price."""
    return Invoice.objects.given(account_id=account_id).annotate(
        whose=F("account__name"), what=F("price__name")
    )


@query(order="code")
def prices() -> Page[Price]:
    """The price list."""
    return Price.objects.all()


@query(order="id")
def logs() -> Page[Log]:
    """The logs."""
    return Log.objects.all()


@query(order="id")
def logged() -> Page[Account]:
    """Accounts with a log of their own."""
    return Account.objects.filter(Exists(Log.objects.filter(id=OuterRef("id"))))


@aggregate
def how_many() -> int:
    """How many accounts there are."""
    return Account.objects.totals(accounts=count())


@aggregate
def by_tenant() -> Groups[str, int]:
    """Accounts by tenant."""
    found = Account.objects.given()
    return found.values("tenant").annotate(accounts=count())


@aggregate
def by_invoice() -> Groups[tuple[str, str], int]:
    """What is owed, grouped by a primary key, what that decides, and a joined name."""
    found = Invoice.objects.given()
    return found.values("id", "team", "account__name").annotate(owed=total("amount"))


@aggregate
def largest(*, account_id: int) -> Groups[int, int]:
    """The largest invoice of each team."""
    found = Invoice.objects.given(account_id=account_id)
    return found.values("team").annotate(amount=highest("amount"))


READS = (
    account, accounts, not_named, owing, debtors, spotless, invoices, prices, how_many, by_tenant,
    by_invoice, largest,
)  # fmt: skip
UNFILTERABLE = (logs, logged)

# -- writes ---------------------------------------------------------------------------------------


@mutation(many="open_accounts")
def open_account(*, id: int, tenant: str, name: str) -> Account:
    """Create an account, in one statement."""
    return Account.objects.create(id=id, tenant=tenant, name=name)


@mutation
def open_own(*, id: int, name: str) -> Account:
    """Create an account of tenant a, whoever calls."""
    return Account.objects.create(id=id, tenant="a", name=name)


@mutation(on=Account)
def rename(*, id: int, name: str) -> int:
    """Rename an account, in one statement."""
    return Account.objects.filter(id=id).update(name=name)


@mutation
def rename_it(*, id: int, name: str) -> Account:
    """Rename an account that must be there."""
    return Account.objects.filter(id=id).update_one(name=name)


@mutation(on=Account)
def hand_over(*, id: int, tenant: str) -> int:
    """Give an account to a tenant."""
    return Account.objects.filter(id=id).update(tenant=tenant)


@mutation(on=Account)
def close_account(*, id: int) -> int:
    """Delete an account, in one statement."""
    return Account.objects.filter(id=id).delete()[0]


@mutation(on=Account)
def rename_debtor(*, id: int, name: str) -> int:
    """Rename an account if it owes anything."""
    owes = Exists(Invoice.objects.filter(account=OuterRef("id")))
    return Account.objects.filter(owes, id=id).update(name=name)


@mutation(on=Invoice)
def drop_invoices(*, account_id: int) -> int:
    """Delete an account's invoices."""
    return Invoice.objects.filter(account_id=account_id).delete()[0]


@mutation
def slowly_open(*, id: int, tenant: str, name: str) -> Account:
    """Create an account, in Python."""
    if Account.objects.filter(id=id).exists():
        Account.objects.filter(id=id).update(name=name)
    return Account.objects.create(id=id, tenant=tenant, name=name)


@mutation
def slowly_rename(*, id: int, name: str) -> Account:
    """Read an account, change and save it."""
    found = Account.objects.get(id=id)
    found.name = name
    found.save()
    return found


@mutation
def slowly_hand_over(*, id: int, tenant: str) -> Account:
    """Read an account, and save it for another tenant."""
    found = Account.objects.get(id=id)
    found.tenant = tenant
    found.save()
    return found


@mutation(on=Account)
def slowly_close(*, id: int) -> int:
    """Delete an account and its invoices."""
    gone = Invoice.objects.filter(account_id=id).delete()[0]
    return gone + Account.objects.filter(id=id).delete()[0]


@mutation(on=Account)
def slowly_count(*, id: int) -> dict[str, int]:
    """Answer how many accounts there are, and what is owed."""
    owed = Invoice.objects.aggregate(sum=Sum("amount"))["sum"] or 0
    return {"id": id, "accounts": Account.objects.count(), "owed": owed}


@mutation
def peek(*, id: int) -> Account:
    """Answer a row that was never read: it is looked up by its key."""
    Account.objects.filter(id=id).exists()
    return Account(id=id)


@mutation(on=Account)
def slowly_log(*, id: int, text: str) -> int:
    """Write what no filter fits."""
    Log.objects.create(id=id, text=text)
    return Log.objects.count()


@mutation
def log(*, id: int, text: str) -> Log:
    """Write a log."""
    return Log.objects.create(id=id, text=text)


WRITES = (
    open_account, open_own, rename, rename_it, hand_over, close_account, rename_debtor,
    drop_invoices, slowly_open, slowly_rename, slowly_hand_over, slowly_close, slowly_count, peek,
    slowly_log, log,
)  # fmt: skip
