"""One file per URL family; each has `routes`."""
