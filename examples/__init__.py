"""Examples: they use saeops as anybody would."""
