"""Fitted transforms of encoded columns: what crosses, counts, rates and time tell beyond ids."""
