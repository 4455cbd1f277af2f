"""The fault bench: flows are broken on purpose, and what people use today is scored beside pilotage.

A *world* is one class of fault (`world.py`, `worlds/`). An *arm* is one way to deal with it (`arms.py`). A *stage* is
where both meet: a real Prefect server with a worker (`real.py`), or a fake one on a clock (`simulated.py`). What was
done is counted by `outside.py`, judged by `score.py` and shown by `report.py`.
"""
