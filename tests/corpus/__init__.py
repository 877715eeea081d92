"""Exchanges between clients, a gateway and its providers, and code to run them. `docs/corpus.md` has the format."""
