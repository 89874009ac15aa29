"""A diary whose notes are in their third version; all three have the same columns."""

from __future__ import annotations

from django.db import models

from modeldefs import Document, Page, Version, mutation, query


class Note(Document):
    """What somebody noted: `mood` is in words."""

    id = models.BigIntegerField(primary_key=True)
    mood = models.TextField()

    class Meta:
        app_label = "definitions_diary"

    class Shard:
        key = "id"
        version = 3


class NoteV1(Version, of=Note, number=1):
    """As it was at first: `mood` was a smiley."""


class NoteV2(Version, of=Note, number=2):
    """As it was then: `mood` was one word."""


class Tag(Document):
    """What a note is about; it never had another version."""

    id = models.BigIntegerField(primary_key=True)

    class Meta:
        app_label = "definitions_diary"

    class Shard:
        key = "id"


@query(order="id")
def notes(*, id: int | None = None) -> Page[Note]:
    """Notes."""
    return Note.objects.given(id=id)


@query(order="id")
def tags() -> Page[Tag]:
    """Tags."""
    return Tag.objects.all()


@mutation
def add_note(*, id: int, mood: str) -> Note:
    """Note something."""
    return Note.objects.create(id=id, mood=mood)
