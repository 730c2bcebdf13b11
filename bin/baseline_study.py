"""`python -m bin.baseline_study` in a checkout is `hyperrecon baseline_study`."""

from hyperrecon_jax.cli.baseline_study import main

if __name__ == "__main__":
    main()
