"""Incidents and the mails about them."""
