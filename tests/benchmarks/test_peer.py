"""The step in PyTorch, where it is installed, has the library's losses before and after a step."""

import importlib.util

import pytest

from hyperrecon_jax import benchmarks
from hyperrecon_jax.benchmarks import against_peer
from hyperrecon_jax.runtime.errors import InputError

SMALL = benchmarks.Scale(size=16, batch=4, width=2, hyper_widths=(3,))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_pytorch_has_the_same_losses_before_and_after_a_step():
    cases = {}
    for candidate in against_peer.candidates(SMALL):
        cases.setdefault(candidate.case, {})[candidate.implementation] = candidate.run(), candidate.run()
    assert list(cases) == ["16 px x 4, instance norm", "16 px x 4, batch norm", "16 px x 4, unrolled"]
    for case in cases.values():
        assert set(case) == {"ours", "PyTorch", "PyTorch, own process"}
        assert case["PyTorch"] == pytest.approx(case["ours"], rel=1e-5)
        assert case["PyTorch, own process"] == pytest.approx(case["ours"], rel=1e-5)
        assert case["ours"][1] < case["ours"][0]


def test_without_pytorch(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs PyTorch, which is not installed"):
        benchmarks.run("peer", SMALL, rounds=1, say=lambda line: None)
