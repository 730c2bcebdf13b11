"""`python -m bin.export` in a checkout is `hyperrecon export`."""

from hyperrecon_jax.cli.export import main

if __name__ == "__main__":
    main()
