"""The story of a model that changes, told on real weights: `make story`."""
