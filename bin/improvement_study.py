"""`python -m bin.improvement_study` in a checkout is `hyperrecon improvement_study`."""

from hyperrecon_jax.cli.improvement_study import main

if __name__ == "__main__":
    main()
