"""A small app with an AI gateway for each of its users, as a user of `fastapi_aibridge` would write it."""
