"""`python -m bin.explore` in a checkout is `hyperrecon explore`."""

from hyperrecon_jax.cli.explore import main

if __name__ == "__main__":
    main()
