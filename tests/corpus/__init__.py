"""Exchanges between clients, a gateway and its providers, and what runs them. `docs/corpus.md` has the format."""
