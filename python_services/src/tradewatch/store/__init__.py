"""The store: PostgreSQL, its schema and the audit."""
