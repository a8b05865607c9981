"""Flows: order, retries, waiting. They run from the checkout and read aloud."""
