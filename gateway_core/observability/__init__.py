"""Context for log lines and trace headers."""
