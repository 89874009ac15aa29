"""People: the users of the first example, and everything one does with them.

A model and its endpoints live in one file. The shard key is the id, so whatever names one id
goes to one shard, a list of ids to their owners, and everything else to all shards.
"""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Lower

from modeldefs import Document, Groups, Page, aggregate, count, mutation, query


class User(Document):
    """One person who signed up."""

    id = models.BigIntegerField(primary_key=True)
    first_name = models.TextField()
    last_name = models.TextField()
    country = models.TextField(db_index=True)
    address = models.TextField()
    city = models.TextField()

    class Shard:
        key = "id"
        version = 1


@query(order="id")
def get_user(*, id: int | None = None, country: str | None = None) -> Page[User]:
    """Users of a country, or one user by id; without either, everybody, page by page."""
    return User.objects.given(id=id, country=country)  # what is absent drops out


@query(order="id")
def get_users(*, id: list[int]) -> Page[User]:
    """The users with these ids: `?id=1&id=2`. Ids that nobody has are left out."""
    return User.objects.filter(id__in=id)


@query(order="last_name")
def find_users(*, prefix: str, country: str | None = None) -> Page[User]:
    """Users whose last name begins with these letters, upper or lower case, by last name."""
    return User.objects.given(country=country).filter(last_name__istartswith=prefix)


@query(order="id")
def users_in_city(*, city: str, country: str | None = None) -> Page[User]:
    """Users of a city, however it is capitalised, each with the city's name in small letters."""
    named = User.objects.given(country=country).annotate(city_lower=Lower("city"))
    return named.filter(city__iexact=city)


@aggregate
def count_users(*, country: str | None = None) -> int:
    """How many users there are, everywhere or in one country."""
    return User.objects.given(country=country).totals(people=count())


@aggregate
def users_by_country() -> Groups[str, int]:
    """How many users each country has."""
    return User.objects.values("country").annotate(people=count())


@aggregate(order="-people", top=10)
def largest_cities(*, country: str | None = None) -> Groups[str, int]:
    """The ten cities with the most users, everywhere or in one country."""
    return User.objects.given(country=country).values("city").annotate(people=count())


# GET is for the first five minutes: a line in a browser's address bar inserts a row. Normally one
# leaves `methods` out and a write is POST only, because a GET may be repeated by a proxy, fetched
# ahead by a browser and kept in logs and histories, with the row's data in the URL.
# `many` makes a second endpoint, POST /insert_users, which takes up to 1,000 users at once.
@mutation(methods=("GET", "POST"), many="insert_users")
def insert_user(
    *, id: int, first_name: str, last_name: str, country: str, address: str, city: str
) -> User:
    """Add a user; an id that is taken is a conflict, and the stored user stays as it is."""
    return User.objects.create(
        id=id,
        first_name=first_name,
        last_name=last_name,
        country=country,
        address=address,
        city=city,
    )


@mutation(on=User)
def update_user(
    *,
    id: int,
    first_name: str | None = None,
    last_name: str | None = None,
    country: str | None = None,
    address: str | None = None,
    city: str | None = None,
) -> bool:
    """Change what is given and leave the rest; false if there is no such user."""
    given = {
        "first_name": first_name,
        "last_name": last_name,
        "country": country,
        "address": address,
        "city": city,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        return User.objects.filter(id=id).exists()
    return User.objects.filter(id=id).update(**changes) > 0


@mutation(on=User)
def delete_user(*, id: int) -> bool:
    """Remove a user; false if there was none."""
    return User.objects.filter(id=id).delete()[0] > 0
