"""A package of definitions whose one model has a past."""
