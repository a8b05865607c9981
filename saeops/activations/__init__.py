"""Activations: token policy, splits, shard format, reader and shuffler."""
