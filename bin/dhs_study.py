"""`python -m bin.dhs_study` in a checkout is `hyperrecon dhs_study`."""

from hyperrecon_jax.cli.dhs_study import main

if __name__ == "__main__":
    main()
