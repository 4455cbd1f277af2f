"""The process behind `pilotage up`: what it does at its start and at its end."""
