"""`python -m bin.prepare` in a checkout is `hyperrecon prepare`."""

from hyperrecon_jax.cli.prepare import main

if __name__ == "__main__":
    main()
