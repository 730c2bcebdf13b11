"""How an image is measured: samples, operators, masks, and the problem that they pose. Nothing here is learned."""
