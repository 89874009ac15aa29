"""The items, in the table that all peers share."""

from django.db import models


class Item(models.Model):
    """Something in a catalogue."""

    id = models.BigIntegerField(primary_key=True)
    category = models.TextField(db_index=True)
    name = models.TextField()
    price = models.DecimalField(max_digits=10, decimal_places=2)
    stock = models.IntegerField()
    note = models.TextField()

    class Meta:
        managed = False
        db_table = "item"
