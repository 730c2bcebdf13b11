"""`python -m bin.bench` in a checkout is `hyperrecon bench`."""

from hyperrecon_jax.cli.bench import main

if __name__ == "__main__":
    main()
