"""Calls to a bridge from the app's own code, without a socket. Modules here are imported when first used."""
