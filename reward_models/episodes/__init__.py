"""Several decisions for one customer, and outcomes that come much later."""
