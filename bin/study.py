"""`python -m bin.study` in a checkout is `hyperrecon study`."""

from hyperrecon_jax.cli.study import main

if __name__ == "__main__":
    main()
