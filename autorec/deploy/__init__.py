"""The deployable ranker: one folder of plain files that scores rows, ranks items and is registered.

`Ranker` (ranker.py) is the folder's object, `rank` (ranking.py) how it ranks, `deploy`
(registration.py) the way into the model registry.
"""
