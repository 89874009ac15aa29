"""Migrations of the trust tables."""
