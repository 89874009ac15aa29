"""Flights: every departure from New York's three airports in 2013, and the planes that flew them.

Flights and planes are spread by tail number, so a plane and all its flights lie on one shard and
a join between them stays there. Airlines, airports and the weather are small and asked for by
everything: as reference models they lie whole on every shard. A relation here never demands that
the other row exists, because in the real data it does not always: 722 tail numbers have no plane,
2,512 flights have no tail number (it is empty), and four airports are in no list.
"""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import DO_NOTHING, Exists, F, ForeignObject, OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce, Concat, ExtractHour, ExtractYear

from modeldefs import (
    Cache,
    Document,
    Groups,
    Page,
    Reference,
    aggregate,
    count,
    highest,
    lowest,
    mean,
    mutation,
    query,
    total,
)


class Airline(Reference):
    """A carrier and the name it flies under."""

    carrier = models.TextField(primary_key=True)
    name = models.TextField()


class Airport(Reference):
    """An airport by its FAA code, with its place and time zone."""

    faa = models.TextField(primary_key=True)
    name = models.TextField()
    lat = models.FloatField()
    lon = models.FloatField()
    alt = models.IntegerField()
    tz = models.IntegerField()
    dst = models.TextField()
    tzone = models.TextField(null=True)


class Weather(Reference):
    """What one of the three airports measured in one hour."""

    id = models.BigIntegerField(primary_key=True)
    origin = models.TextField()
    year = models.IntegerField()
    month = models.IntegerField()
    day = models.IntegerField()
    hour = models.IntegerField()
    temp = models.FloatField(null=True)
    dewp = models.FloatField(null=True)
    humid = models.FloatField(null=True)
    wind_dir = models.IntegerField(null=True)
    wind_speed = models.FloatField(null=True)
    wind_gust = models.FloatField(null=True)
    precip = models.FloatField()
    pressure = models.FloatField(null=True)
    visib = models.FloatField()
    time_hour = models.DateTimeField()

    class Meta:
        # The local hour would not do: when the clocks go back it comes twice in one night.
        constraints = [
            models.UniqueConstraint(fields=["origin", "time_hour"], name="weather_once_an_hour")
        ]


class Plane(Document):
    """An aircraft as the FAA registered it."""

    tailnum = models.TextField(primary_key=True)
    year = models.IntegerField(null=True)
    type = models.TextField()
    manufacturer = models.TextField(db_index=True)
    model = models.TextField()
    engines = models.IntegerField()
    seats = models.IntegerField()
    speed = models.IntegerField(null=True)
    engine = models.TextField()

    class Shard:
        key = "tailnum"
        version = 1


class Flight(Document):
    """One departure; times are local, as on the ticket (517 is 5:17), `time_hour` is exact.

    A flight without `dep_time` was cancelled, one without `air_time` never arrived as planned.
    """

    id = models.BigIntegerField(primary_key=True)
    year = models.IntegerField()
    month = models.IntegerField()
    day = models.IntegerField()
    dep_time = models.IntegerField(null=True)
    sched_dep_time = models.IntegerField()
    dep_delay = models.IntegerField(null=True)
    arr_time = models.IntegerField(null=True)
    sched_arr_time = models.IntegerField()
    arr_delay = models.IntegerField(null=True)
    carrier = models.TextField()
    flight = models.IntegerField()
    tailnum = models.TextField(db_index=True)
    origin = models.TextField()
    dest = models.TextField()
    air_time = models.IntegerField(null=True)
    distance = models.IntegerField()
    hour = models.IntegerField()
    minute = models.IntegerField()
    time_hour = models.DateTimeField()

    plane = ForeignObject(
        Plane,
        on_delete=DO_NOTHING,
        from_fields=["tailnum"],
        to_fields=["tailnum"],
        null=True,
        related_name="flights",
    )
    airline = ForeignObject(
        Airline,
        on_delete=DO_NOTHING,
        from_fields=["carrier"],
        to_fields=["carrier"],
        related_name="flights",
    )
    destination = ForeignObject(
        Airport,
        on_delete=DO_NOTHING,
        from_fields=["dest"],
        to_fields=["faa"],
        null=True,
        related_name="arrivals",
    )
    weather = ForeignObject(
        Weather,
        on_delete=DO_NOTHING,
        from_fields=["origin", "time_hour"],
        to_fields=["origin", "time_hour"],
        null=True,
        related_name="departures",
    )

    class Meta:
        indexes = [models.Index(fields=["carrier", "month", "day"], name="flight_carrier_day")]

    class Shard:
        key = "tailnum"
        version = 1
        colocated_with = "Plane"


# One shard answers these: they name a tail number.


@query
def get_plane(*, tailnum: str) -> Plane | None:
    """One plane by its tail number."""
    return Plane.objects.filter(tailnum=tailnum).one()


@query
def get_flight(*, id: int, tailnum: str | None = None) -> Flight | None:
    """One flight by its id; with the tail number too, only the shard that has it is asked."""
    return Flight.objects.given(id=id, tailnum=tailnum).one()


@query(order="time_hour")
def flights_of_plane(
    *, tailnum: str, month: int | None = None, since: datetime | None = None
) -> Page[Flight]:
    """The flights of one plane, earliest first; of one month, or from a point in time on."""
    return Flight.objects.given(tailnum=tailnum, month=month, time_hour__gte=since)


@query(order="time_hour")
def flights_with_maker(*, tailnum: list[str]) -> Page[Flight]:
    """The flights of several planes, each with who made its plane, the model and its seats."""
    flights = Flight.objects.filter(tailnum__in=tailnum)
    return flights.annotate(
        manufacturer=Coalesce("plane__manufacturer", Value("unknown", models.TextField())),
        model=F("plane__model"),
        seats=F("plane__seats"),
    )


# These go to every shard, and their parts are merged.


@query(order="id")
def flights_by_carrier(*, carrier: str, month: int, day: int | None = None) -> Page[Flight]:
    """The flights of a carrier in one month, or on one day, with the airline's name."""
    flights = Flight.objects.given(carrier=carrier, month=month, day=day)
    return flights.annotate(airline_name=F("airline__name"))


@query(order="-delay")
def late_flights(
    *, minutes: int, origin: str | None = None, carrier: str | None = None
) -> Page[Flight]:
    """Flights that arrived at least so many minutes late, the latest first."""
    flights = Flight.objects.given(origin=origin, carrier=carrier)
    return flights.annotate(delay=Coalesce("arr_delay", 0)).filter(delay__gte=minutes)


@query(order="id")
def flights_in_bad_weather(
    *, visibility: float, wind: float | None = None, origin: str | None = None
) -> Page[Flight]:
    """Flights that left when one saw at most so many miles, or in wind of so many mph or more."""
    bad = Q(weather__visib__lte=visibility)
    if wind is not None:
        bad |= Q(weather__wind_speed__gte=wind)
    flights = Flight.objects.given(origin=origin).filter(bad, dep_time__isnull=False)
    return flights.annotate(visib=F("weather__visib"), wind_speed=F("weather__wind_speed"))


@query(order="id")
def long_haul(*, miles: int, without_carrier: str | None = None) -> Page[Flight]:
    """Flights longer than so many miles, with their route and the destination's name."""
    flights = Flight.objects.filter(distance__gt=miles)
    if without_carrier is not None:
        flights = flights.exclude(carrier=without_carrier)
    return flights.annotate(
        route=Concat("origin", Value("-", models.TextField()), "dest"),
        destination_name=Coalesce("destination__name", "dest"),
    )


@query(order="tailnum")
def planes_by_manufacturer(*, manufacturer: str, year: int | None = None) -> Page[Plane]:
    """The planes of a maker, in any capitals, of all years or of one."""
    return Plane.objects.given(manufacturer__iexact=manufacturer, year=year)


@query(order="tailnum")
def planes_to(*, dest: str, manufacturer: str | None = None) -> Page[Plane]:
    """The planes that flew to an airport at least once."""
    there = Flight.objects.filter(tailnum=OuterRef("tailnum"), dest=dest)
    return Plane.objects.given(manufacturer=manufacturer).filter(Exists(there))


@query(order="tailnum")
def planes_with_last_flight(*, older_than: int) -> Page[Plane]:
    """Planes built before a year, each with its last flight and its age in that flight's year."""
    last = Flight.objects.filter(tailnum=OuterRef("tailnum")).order_by("-time_hour", "-id")
    planes = Plane.objects.filter(year__lt=older_than)
    return planes.annotate(
        last_flight=Subquery(last.values("time_hour")[:1]),
        age=Subquery(last.annotate(flown=ExtractYear("time_hour")).values("flown")[:1])
        - F("year"),
    )


@aggregate
def count_flights(*, carrier: str | None = None, dest: list[str] | None = None) -> int:
    """How many flights there are: of a carrier, to some airports, or at all."""
    return Flight.objects.given(carrier=carrier, dest=dest).totals(flights=count())


@aggregate
def longest_distance(*, carrier: str | None = None) -> int | None:
    """The longest distance flown, in miles; null where a carrier has no flights."""
    return Flight.objects.given(carrier=carrier).totals(miles=highest("distance"))


@aggregate
def fastest_trip(*, origin: str, dest: str) -> int | None:
    """The shortest time in the air between two airports, in minutes; null if nobody flew."""
    return Flight.objects.filter(origin=origin, dest=dest).totals(minutes=lowest("air_time"))


@aggregate
def delays_by_carrier(*, month: int | None = None) -> Groups[str, float | None]:
    """How many minutes late the flights of each carrier arrived on average."""
    return Flight.objects.given(month=month).values("carrier").annotate(delay=mean("arr_delay"))


@aggregate
def cancelled_by_airline() -> Groups[str, int]:
    """How many flights each airline cancelled, under the airline's name."""
    cancelled = Flight.objects.filter(dep_time__isnull=True)
    return cancelled.values("airline__name").annotate(flights=count())


@aggregate(order="-flights", top=10)
def busiest_routes(*, month: int | None = None) -> Groups[tuple[str, str], int]:
    """The ten busiest routes, of the year or of one month."""
    return Flight.objects.given(month=month).values("origin", "dest").annotate(flights=count())


@aggregate(order="-delay", top=1)
def slowest_day(*, origin: str | None = None) -> Groups[tuple[int, int], float | None]:
    """The month and day with the longest mean delay at departure."""
    flights = Flight.objects.given(origin=origin).filter(dep_delay__isnull=False)
    return flights.values("month", "day").annotate(delay=mean("dep_delay"))


@aggregate(order="-flights", top=10)
def top_destinations(*, month: int | None = None, origin: str | None = None) -> Groups[str, int]:
    """The ten airports most flown to."""
    flights = Flight.objects.given(month=month, origin=origin)
    return flights.values("dest").annotate(flights=count())


@aggregate
def seats_by_manufacturer(*, origin: str | None = None) -> Groups[str, int]:
    """How many seats each maker's planes carried away, full or empty."""
    flown = Flight.objects.given(origin=origin).filter(plane__isnull=False)
    return flown.values("plane__manufacturer").annotate(seats=total("plane__seats"))


@aggregate
def flights_by_hour(*, carrier: str | None = None) -> Groups[int, int]:
    """How many flights were due to leave in each hour of the day, in universal time."""
    flights = Flight.objects.given(carrier=carrier).annotate(utc_hour=ExtractHour("time_hour"))
    return flights.values("utc_hour").annotate(flights=count())


# Any one shard answers these: reference models lie on all of them.


# Airlines hardly ever change: a client may use its copy for a minute, and an hour longer when the
# shards cannot be asked.
@query(order="carrier", cache=Cache(max_age_s=60, stale_if_error_s=3_600))
def airlines() -> Page[Airline]:
    """All airlines."""
    return Airline.objects.all()


@query
def get_airport(*, faa: str) -> Airport | None:
    """One airport by its FAA code."""
    return Airport.objects.filter(faa=faa).one()


@query(order="time_hour")
def weather_at(*, origin: str, month: int, day: int) -> Page[Weather]:
    """The weather at one of the three airports, hour by hour, on one day."""
    return Weather.objects.filter(origin=origin, month=month, day=day)


# A plane and its flights are one shard's, so one transaction can change both.


@mutation(on=Plane)
def retire_plane(*, tailnum: str) -> int:
    """Remove a plane and all its flights, both or neither; return how many flights went."""
    flights = Flight.objects.filter(tailnum=tailnum).delete()[0]
    Plane.objects.filter(tailnum=tailnum).delete()
    return flights
