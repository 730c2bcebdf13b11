"""`python -m bin.choose` in a checkout is `hyperrecon choose`."""

from hyperrecon_jax.cli.choose import main

if __name__ == "__main__":
    main()
