"""SAEs as other libraries keep them: read into the canonical form, written from it."""
