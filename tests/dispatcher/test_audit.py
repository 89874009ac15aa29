"""The audit log: a chain that nobody edits unnoticed."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connection, transaction

from dispatcher_site.trust import audit
from dispatcher_site.trust.models import AuditEntry
from tests.dispatcher.making import TESTER

pytestmark = pytest.mark.django_db


def _three() -> None:
    for number in range(3):
        audit.record(actor=TESTER, action="test", target=str(number), after={"n": number})


def _tamper(statement: str) -> None:
    """Change the table as a superuser would who switched the trigger off."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE trust_auditentry DISABLE TRIGGER USER")
        cursor.execute(statement)
        cursor.execute("ALTER TABLE trust_auditentry ENABLE TRIGGER USER")


def test_a_chain_that_nobody_touched_verifies() -> None:
    """All entries are there, each after the one before it."""
    _three()

    report = audit.verify()

    assert (report.entries, report.broken_at) == (3, None)
    assert report.head == AuditEntry.objects.get(pk=3).hash


@pytest.mark.parametrize(
    "statement",
    ["UPDATE trust_auditentry SET actor = 'x'", "DELETE FROM trust_auditentry WHERE id = 3"],
)
def test_the_database_refuses_changes(statement: str) -> None:
    """UPDATE and DELETE fail whoever asks."""
    _three()

    with (
        pytest.raises(DatabaseError, match="never changed"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)

    assert audit.verify().broken_at is None


@pytest.mark.parametrize(
    ("statement", "broken_at"),
    [
        ("UPDATE trust_auditentry SET actor = 'x' WHERE id = 2", 2),
        ("UPDATE trust_auditentry SET after = '{\"n\": 9}' WHERE id = 3", 3),
        ("DELETE FROM trust_auditentry WHERE id = 1", 1),
        ("DELETE FROM trust_auditentry WHERE id = 2", 2),
        ("UPDATE trust_auditentry SET hash = prev_hash WHERE id = 1", 1),
    ],
)
def test_verify_names_the_first_broken_entry(statement: str, broken_at: int) -> None:
    """An edited or missing entry is found, and which."""
    _three()
    _tamper(statement)

    assert audit.verify().broken_at == broken_at


class Undone(Exception):
    """The change failed."""


def _change_and_fail() -> None:
    with transaction.atomic():
        audit.record(actor=TESTER, action="test", target="x")
        raise Undone


def test_no_entry_without_its_change() -> None:
    """A change that is rolled back leaves no entry behind."""
    with pytest.raises(Undone):
        _change_and_fail()

    assert AuditEntry.objects.count() == 0
