"""C++ kernels for training on a CPU, compiled on the machine that runs them."""
