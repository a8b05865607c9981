"""Report: the page a person opens at the end."""
