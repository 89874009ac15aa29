"""Refuse to change or delete an audit entry, in the database itself."""

from __future__ import annotations

from django.db import migrations

FORWARD = """
CREATE FUNCTION trust_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit entries are never changed or deleted' USING ERRCODE = 'SP010';
END $$;
CREATE TRIGGER trust_audit_is_append_only
    BEFORE UPDATE OR DELETE ON trust_auditentry
    FOR EACH ROW EXECUTE FUNCTION trust_audit_is_append_only();
"""
BACKWARD = """
DROP TRIGGER trust_audit_is_append_only ON trust_auditentry;
DROP FUNCTION trust_audit_is_append_only();
"""


class Migration(migrations.Migration):
    """Add the trigger."""

    dependencies = [("trust", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
