pytest_plugins = ["fastapi_aibridge.testing.pytest_plugin"]
