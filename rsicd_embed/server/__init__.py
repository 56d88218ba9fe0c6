"""The HTTP API (`api.py`) and the search page (`static/`)."""
