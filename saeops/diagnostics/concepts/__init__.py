"""Feature quality by known concepts: probe loss on built-in concepts, and absorption by first letter."""
