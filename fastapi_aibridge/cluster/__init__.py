"""State shared by workers and replicas. The modules need SQLAlchemy or redis and are imported where they are used."""
