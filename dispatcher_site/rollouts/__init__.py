"""Rollouts of model versions."""
