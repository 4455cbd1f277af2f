"""The main job on embedded defaults: a Prefect of our own, faults, and the loop that deals with them."""
