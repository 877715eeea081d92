"""What workers and replicas share. The modules need SQLAlchemy or redis, so they are imported where they are used."""
