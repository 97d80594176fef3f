"""The project's memory: every fit and trial as MLflow runs, every ranker in its model registry.

The only room that imports mlflow, and only when a function here is called: the import alone takes
two seconds. Nothing is set for the process: no tracking URI, no active run, no autologging.
"""
