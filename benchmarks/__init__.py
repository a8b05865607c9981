"""Side by side with other SAE libraries, in an environment of their own."""
