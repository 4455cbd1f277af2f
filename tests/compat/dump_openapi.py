"""Prints the OpenAPI description of the Prefect server that this interpreter has; runs without pilotage."""

import json
import sys

from prefect.server.api.server import create_app

app = create_app()
api = next(vars(route)["app"] for route in app.routes if getattr(route, "path", None) == "/api")
json.dump(api.openapi(), sys.stdout)
