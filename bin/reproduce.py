"""`python -m bin.reproduce` in a checkout is `hyperrecon reproduce`."""

from hyperrecon_jax.cli.reproduce import main

if __name__ == "__main__":
    main()
