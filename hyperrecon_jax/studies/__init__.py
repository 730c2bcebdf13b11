"""Studies: many runs by a plan, compared with one another; the whole paper is one of them."""
