"""Tasks: one thin file a stage, references in and references out."""
