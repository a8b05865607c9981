"""Dictionary: the bundle, its manifest, what a loaded one can do."""
