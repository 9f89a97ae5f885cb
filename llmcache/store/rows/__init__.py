"""The durable tier: rows in a database, the truth."""
