"""Where journals lie: a SQLite file (the default), or a PostgreSQL database that several machines share."""
