"""`python -m bin.evaluate` in a checkout is `hyperrecon evaluate`."""

from hyperrecon_jax.cli.evaluate import main

if __name__ == "__main__":
    main()
