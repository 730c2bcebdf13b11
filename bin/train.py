"""`python -m bin.train` in a checkout is `hyperrecon train`."""

from hyperrecon_jax.cli.train import main

if __name__ == "__main__":
    main()
