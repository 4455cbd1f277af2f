"""`pilotage doctor`: what is wrong or missing in an installation and on its Prefect server, and what to do."""
