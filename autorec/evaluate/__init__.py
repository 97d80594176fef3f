"""How sure a number is (`intervals`) and how long a prediction takes (`latency`)."""

from __future__ import annotations
