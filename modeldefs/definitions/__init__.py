"""The user's own models and endpoints; two examples ship here."""
