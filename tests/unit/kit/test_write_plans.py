"""A mutation that is one create, update or delete is one statement; any other stays Python."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import models
from django.db.models import F, Value
from django.db.models.functions import Concat, Now, Upper
from django.db.models.signals import pre_save
from django.utils import timezone

from modeldefs import Document, Page, mutation, query
from modeldefs.kit.catalog import shard_key_parameter
from modeldefs.kit.write_plans import WritePlan, write_plan
from tests.definitions_shop.shop import Country, Customer, Order, Parcel
from tests.unit.kit.planning import code_of, page_plan, resolved

LIMIT = 5


class Note(Document):
    """Something written down."""

    id = models.BigIntegerField(primary_key=True)
    text = models.TextField(default="empty")
    kind = models.CharField(max_length=10, null=True)
    stars = models.IntegerField(default=0)
    seen = models.BooleanField(default=False)

    class Meta:
        app_label = "definitions_writes"

    class Shard:
        key = "id"


class Stamped(Document):
    """A row that Python gives a time and an id."""

    id = models.BigIntegerField(primary_key=True)
    token = models.UUIDField(default=uuid.uuid4)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "definitions_writes"

    class Shard:
        key = "id"


class Saving(Document):
    """A row with a save() of its own."""

    id = models.BigIntegerField(primary_key=True)

    class Meta:
        app_label = "definitions_writes"

    class Shard:
        key = "id"

    def save(self, **kwargs: Any) -> None:
        """Save, as it says."""
        super().save(**kwargs)


def outcome(body: Callable[..., Any], *given: str, on: Any = Note) -> WritePlan | str:
    """Return what the kit makes of a mutation with these parameters given."""
    endpoint = resolved(mutation(on=on)(body))
    return write_plan(endpoint, frozenset(given), key=shard_key_parameter(endpoint))


def planned(body: Callable[..., Any], *given: str, on: Any = Note) -> WritePlan:
    """Return its plan; fail with the reason if there is none."""
    plan = outcome(body, *given, on=on)

    assert isinstance(plan, WritePlan), plan

    return plan


def create(*, id: int, text: str) -> Note:
    """Create a note."""
    return Note.objects.create(id=id, text=text)


def save(*, id: int, text: str) -> Note:
    """Save a note that must be new."""
    note = Note(id=id, text=text)
    note.save(force_insert=True)
    return note


def test_a_create_is_one_insert_with_a_slot_for_every_value() -> None:
    """Parameters become slots, defaults of the model literals, the bucket a slot of its own."""
    plan = planned(create, "id", "text")

    assert plan.verb == "insert"
    assert plan.slots == ("sp_bucket", "id", "text")
    assert plan.sql.startswith(
        'INSERT INTO "definitions_writes_note" ("bucket", "id", "text", "kind", "stars", "seen") '
        "SELECT $1::integer, $2::bigint, $3::text, NULL, 0, false FROM sp_own RETURNING "
    )
    assert [column.name for column in plan.columns] == ["id", "text", "kind", "stars", "seen"]


def test_an_instance_saved_as_new_is_a_create() -> None:
    """`save(force_insert=True)` gives the plan that `create()` gives."""
    assert planned(save, "id", "text") == planned(create, "id", "text")


def test_an_absent_parameter_is_none_and_a_present_one_a_slot() -> None:
    """Branches on `is None` are taken when the definitions are loaded, one plan for each set."""

    def change(*, id: int, text: str | None = None, stars: int | None = None) -> int:
        changes: dict[str, Any] = {}
        if text is not None:
            changes["text"] = text
        if stars is not None:
            changes["stars"] = stars
        return Note.objects.filter(id=id).update(**changes)

    assert planned(change, "id", "text").slots == ("text", "id")
    assert planned(change, "id", "text", "stars").slots == ("text", "stars", "id")
    assert outcome(change, "id") == "changes nothing, or rows of several tables"


def counted(*, id: int) -> int:
    """Return the count."""
    return Note.objects.filter(id=id).update(seen=True)


def above_none(*, id: int) -> bool:
    """Return whether there was a row."""
    return Note.objects.filter(id=id).update(seen=True) > 0


def just_one(*, id: int) -> bool:
    """Return whether there was one."""
    return Note.objects.filter(id=id).update(seen=True) == 1


def truth(*, id: int) -> bool:
    """Return the truth of the count."""
    return bool(Note.objects.filter(id=id).update(seen=True))


def negated(*, id: int) -> bool:
    """Return whether there was none."""
    return not Note.objects.filter(id=id).delete()[0] > 0


def nothing(*, id: int) -> None:
    """Return nothing."""
    Note.objects.filter(id=id).delete()


def always(*, id: int) -> bool:
    """Return a constant."""
    Note.objects.filter(id=id).delete()
    return True


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (counted, "(SELECT count(*)::text FROM sp_row)"),
        (above_none, "(SELECT (count(*) > 0)::text FROM sp_row)"),
        (just_one, "(SELECT (count(*) = 1)::text FROM sp_row)"),
        (truth, "(SELECT (count(*) <> 0)::text FROM sp_row)"),
        (negated, "(SELECT (NOT (count(*) > 0))::text FROM sp_row)"),
        (nothing, "'null'"),
        (always, "'true'"),
    ],
)
def test_what_is_said_of_the_count_is_said_by_postgres(
    body: Callable[..., Any], answer: str
) -> None:
    """A count, a comparison of it and its truth are results; so are constants."""
    assert planned(body, "id").answer == answer


def test_expressions_are_left_to_postgres() -> None:
    """F(), functions and Now() stand in the statement as in a read."""

    def change(*, id: int, text: str) -> int:
        return Note.objects.filter(id=id, seen=False).update(
            stars=F("stars") + 1, text=Concat(Upper("text"), Value("-", models.TextField()), text)
        )

    plan = planned(change, "id", "text")

    assert '"stars" = ("definitions_writes_note"."stars" + 1)' in plan.sql
    assert plan.slots == ("text", "id")


def test_an_update_without_a_filter_is_still_under_the_condition() -> None:
    """Whatever the WHERE says, nothing is touched unless the caller may write here."""

    def either(*, id: int, text: str) -> int:
        rows = Note.objects.filter(id=id) | Note.objects.filter(text=text)
        return rows.update(seen=True)

    def all_of_them(*, id: int) -> int:
        return Note.objects.update(seen=True)

    assert " OR " in planned(either, "id", "text").sql
    assert planned(either, "id", "text").sql.count("AND EXISTS (SELECT FROM sp_own)") == 1
    assert ") AND EXISTS (SELECT FROM sp_own)" in planned(either, "id", "text").sql
    assert "WHERE EXISTS (SELECT FROM sp_own)" in planned(all_of_them, "id").sql


def test_update_one_answers_the_row_and_wants_it_to_be_there() -> None:
    """It is one UPDATE ... RETURNING; no row is "not found"."""

    def change(*, id: int, text: str | None = None) -> Note:
        if text is None:
            return Note.objects.filter(id=id).update_one(seen=True)
        return Note.objects.filter(id=id).update_one(text=text)

    plan = planned(change, "id", "text")

    assert plan.must_exist
    assert plan.verb == "update"
    assert [column.name for column in plan.columns] == ["id", "text", "kind", "stars", "seen"]


class Trap:
    """Counts how often it is reached for."""

    reached = 0

    def __call__(self, *args: object) -> str:
        Trap.reached += 1
        return "x"


trap = Trap()


def branches(*, id: int, text: str) -> int:
    """Branch on a value."""
    if text == "x":
        return Note.objects.filter(id=id).delete()[0]
    return Note.objects.filter(id=id).update(text=text)


def two(*, id: int, text: str) -> int:
    """Run two statements."""
    Note.objects.filter(id=id).delete()
    return Note.objects.filter(text=text).update(seen=True)


def reads_first(*, id: int, text: str) -> Note:
    """Read a row and save it."""
    note = Note.objects.get(id=id)
    note.save()
    return note


def upserts(*, id: int, text: str) -> Note:
    """Save what may be there."""
    note = Note(id=id, text=text)
    note.save()
    return note


def goes_on(*, id: int, text: str) -> str:
    """Return something else by the count."""
    return "yes" if Note.objects.filter(id=id).update(text=text) else "no"


def counts_on(*, id: int, text: str) -> int:
    """Compare the count with something from outside."""
    return Note.objects.filter(id=id).update(text=text) > LIMIT


def clock(*, id: int, text: str) -> int:
    """Ask the clock."""
    return Note.objects.filter(id=id).update(text=str(timezone.now()))


def chance(*, id: int, text: str) -> Note:
    """Ask chance."""
    return Note.objects.create(id=id, text=text, stars=random.choice([0, 1]))


def outside(*, id: int, text: str) -> Note:
    """Use a global value."""
    return Note.objects.create(id=id, text=text, stars=LIMIT)


def calls_out(*, id: int, text: str) -> Note:
    """Call something unknown."""
    return Note.objects.create(id=id, text=trap(text))


def catches(*, id: int, text: str) -> Note | None:
    """Go on after an error."""
    try:
        return Note.objects.create(id=id, text=text)
    except ValueError:
        return None


def reads_back(*, id: int, text: str) -> int:
    """Use a field of the created row."""
    note = Note.objects.create(id=id, text=text)
    return note.stars + 1


def places_by_another(*, id: int, text: str, stars: int) -> Note:
    """Place the row by another parameter."""
    return Note.objects.create(id=stars, text=text)


def several(*, id: int, text: str) -> None:
    """Create several rows."""
    Note.objects.bulk_create([Note(id=id, text=text), Note(id=id, text=text)])


def converts(*, id: int, text: str) -> int:
    """Store a text in a number."""
    return Note.objects.filter(id=id).update(stars=text)


def compares_converted(*, id: int, text: str) -> int:
    """Compare a number with a text."""
    return Note.objects.filter(stars=text).update(seen=True)


def prefix(*, id: int, text: str) -> int:
    """Let Django compute a pattern."""
    return Note.objects.filter(id=id, text__startswith="a_b").update(text=text)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (branches, "compares the value of parameter 'text'"),
        (two, "more than one statement"),
        (reads_first, "reads rows before"),
        (upserts, "reads the value of parameter 'id'"),
        (goes_on, "returns something else"),
        (counts_on, "uses LIMIT"),
        (clock, "uses now"),
        (chance, "uses random"),
        (outside, "uses LIMIT"),
        (calls_out, "uses trap"),
        (catches, "catches errors"),
        (reads_back, "uses .stars"),
        (several, "uses .bulk_create"),
        (converts, "gives stars the parameter 'text'"),
        (compares_converted, "compares with parameter 'text'"),
        (prefix, "uses a value that Python computes"),
    ],
)
def test_anything_else_is_python_and_says_why(body: Callable[..., Any], reason: str) -> None:
    """It is no error: the endpoint runs in a thread, and explain gives the reason."""
    found = outcome(body, "id", "text")

    assert isinstance(found, str)
    assert reason in found


def test_the_row_must_be_placed_by_the_parameter_that_routed_it() -> None:
    """Another value than the routed key could belong to another shard."""
    found = outcome(places_by_another, "id", "text", "stars")

    assert found == "places the row by another value than parameter 'id'"


def test_no_code_of_the_authors_but_the_function_runs_while_tracing() -> None:
    """What a name does is unknown, so it is not called to find out."""
    before = Trap.reached
    outcome(calls_out, "id", "text")

    assert Trap.reached == before


def test_values_that_python_computes_are_never_frozen() -> None:
    """Callable defaults, auto_now and a save() of the model's own need Python each time."""

    def stamp(*, id: int) -> Stamped:
        return Stamped.objects.create(id=id)

    def own_save(*, id: int) -> Saving:
        return Saving.objects.create(id=id)

    assert "has a default that Python computes" in str(outcome(stamp, "id", on=Stamped))
    assert "save() of its own" in str(outcome(own_save, "id", on=Saving))


def test_a_given_value_stands_in_for_a_computed_default() -> None:
    """A default is not computed where the caller gives the value; auto_now still is."""

    def stamp(*, id: int, token: uuid.UUID) -> Stamped:
        return Stamped.objects.create(id=id, token=token)

    assert "auto_now" in str(outcome(stamp, "id", "token", on=Stamped))


def test_a_receiver_of_a_signal_keeps_its_mutation_in_python() -> None:
    """It must be told of each row, and runs nowhere else."""

    def receive(**kwargs: object) -> None:
        raise AssertionError("called while tracing")

    pre_save.connect(receive, sender=Note)
    try:
        found = outcome(create, "id", "text")
    finally:
        pre_save.disconnect(receive, sender=Note)

    assert "signal" in str(found)


def test_a_null_is_none_as_in_python() -> None:
    """A parameter that is null takes the branch that None takes, and stores NULL."""

    def name(*, id: int, name: str, nick: str | None = None) -> bool:
        return Customer.objects.filter(id=id).update(name=name, nick=nick) > 0

    plan = planned(name, "id", "name", on=Customer)

    assert '"nick" = NULL' in plan.sql
    assert plan.slots == ("name", "id")


def test_foreign_keys_and_every_kind_of_parameter_fit_their_columns() -> None:
    """A child is placed by its parent's key; each type of parameter meets its column."""

    def order(*, id: int, customer_id: int, note: str | None = None) -> Order:
        return Order.objects.create(
            id=id, customer_id=customer_id, price=0, placed=Now(), note=note
        )

    def parcel(*, id: uuid.UUID, label: str) -> int:
        return Parcel.objects.filter(id=id).update(label=label)

    def country(*, id: int, code: str) -> int:
        return Country.objects.filter(code=code).delete()[0]

    assert "STATEMENT_TIMESTAMP()" in planned(order, "id", "customer_id", on=Order).sql
    assert planned(parcel, "id", "label", on=Parcel).slots == ("label", "id")
    assert isinstance(outcome(country, "id", "code"), WritePlan)


def today(*, id: int) -> Page[Customer]:
    """Read with the clock."""
    return Customer.objects.filter(id=id, joined__gte=timezone.now())


def helper() -> datetime:
    """Return the time."""
    return datetime.now()  # noqa: DTZ005


def by_helper(*, id: int) -> Page[Customer]:
    """Read with the clock, by way of a helper."""
    return Customer.objects.filter(id=id, joined__gte=helper())


def by_chance(*, id: int) -> Page[Customer]:
    """Read with chance."""
    return Customer.objects.filter(id=id, points=random.randint(0, 1))


def since_2013(*, id: int) -> Page[Customer]:
    """Read with a constant date."""
    return Customer.objects.filter(id=id, joined__gte=datetime(2013, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("body", [today, by_helper, by_chance])
def test_a_read_may_not_freeze_the_clock_or_chance(body: Callable[..., Any]) -> None:
    """Its value at load time would answer every later request."""
    assert code_of(lambda: page_plan(body, "id")) == "computed-constant"


def test_a_read_may_compute_what_never_changes() -> None:
    """A date that is written out is the same at every load."""
    assert "2013-01-01" in page_plan(since_2013, "id").first.sql  # type: ignore[union-attr]


def test_a_read_may_have_a_word_of_the_clock_as_a_parameter() -> None:
    """Only what the code reaches for counts, not what it is given."""

    @query
    def at(*, now: datetime) -> Page[Customer]:
        return Customer.objects.filter(joined__lt=now)

    assert code_of(lambda: page_plan(at.function, "now")) == ""
