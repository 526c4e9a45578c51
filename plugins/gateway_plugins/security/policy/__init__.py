"""Access rules: compilation of the settings, and evaluation."""
