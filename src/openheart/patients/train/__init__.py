"""How the patients' weights were made: `python -m openheart.patients.train NAME` or `all`."""
