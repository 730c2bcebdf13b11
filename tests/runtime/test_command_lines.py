"""The form of a command line in help texts and messages."""

import pytest

from hyperrecon_jax.runtime.command_lines import adapt

TEXT = """Say --config quickstart, or use a file.

    hyperrecon train --config paper_denoise:S --config.train.steps=3
    srun hyperrecon evaluate --run runs/a --config mine.py
    hyperrecon study --plan reproduce:laptop --out configs
    hyperrecon bench

The software hyperrecon_jax; hyperrecon in a sentence; --config FILE."""
CHECKOUT = """Say --config configs/quickstart.py, or use a file.

    python -m bin.train --config configs/paper_denoise.py:S --config.train.steps=3
    srun python -m bin.evaluate --run runs/a --config mine.py
    python -m bin.study --plan configs/plans/reproduce.py:laptop --out configs
    python -m bin.bench

The software hyperrecon_jax; hyperrecon in a sentence; --config FILE."""


@pytest.mark.parametrize(
    ("script", "in_checkout", "expected"),
    [
        ("/env/bin/hyperrecon", False, TEXT),
        ("/env/bin/hyperrecon", True, TEXT),
        ("C:/env/Scripts/hyperrecon.exe", True, TEXT),
        ("/checkout/bin/train.py", False, CHECKOUT),
        ("bin/train.py", False, CHECKOUT),
        ("-c", False, TEXT),
        ("-c", True, CHECKOUT),
        ("", False, TEXT),
    ],
)
def test_command_lines_have_the_form_that_started_the_process(script, in_checkout, expected, tmp_path, monkeypatch):
    if in_checkout:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "train.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [script, "--run", "x"])
    assert adapt(TEXT) == expected
