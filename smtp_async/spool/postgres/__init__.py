"""The spool in PostgreSQL: `spool` is the face, `schema` and `statements` have the SQL."""
