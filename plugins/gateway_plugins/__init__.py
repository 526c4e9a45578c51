"""The built-in plugins: one module or small package each, and none imports another."""
