"""Providers, one file for each vendor: credentials, routes, headers and error shape."""
