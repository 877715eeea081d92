"""What the workers on one database share. The modules need SQLAlchemy, so they are imported where they are used."""
