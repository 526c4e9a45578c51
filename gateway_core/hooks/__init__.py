"""Plugin hooks: their specifications, their dispatch, loading plugins and reconfiguring them."""
