"""Providers, one file each: who is called, with which credentials, routes, headers and error shape."""
