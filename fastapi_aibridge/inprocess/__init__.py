"""Calls to a bridge from the app's own code, with no socket in between. Nothing here is imported before it is used."""
