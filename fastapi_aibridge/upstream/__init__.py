"""Connections to providers: the HTTP client, its connection pools, keys, circuit breakers and retries."""
