"""The demo: a small real site under a real supervisord, the faults it suffers, and an independent oracle."""
