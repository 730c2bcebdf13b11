"""Run by test_step.py: what the compiled step of HyperRecon-L exchanges on 1, 2, 4 and 8 forced CPU devices, as JSON."""

import os

os.environ["JAX_NUM_CPU_DEVICES"] = "8"

import json

import jax
from jax.sharding import AxisType

from hyperrecon_jax.benchmarks import networks
from hyperrecon_jax.runtime import mesh
from hyperrecon_jax.training.step import make_step
from tests.training.test_step import exchange_sizes

SAMPLES = 32  # of each device


def main():
    exchanges = {}
    for count in (1, 2, 4, 8):
        scale = networks.Scale(size=16, batch=SAMPLES * count, width=32, hyper_widths=(128,))
        task = networks.supervised_task(scale, hyper_width=128, norm="instance")
        devices = jax.make_mesh((count,), (mesh.DEVICE,), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
        state = networks.place_initial_state(task, devices)
        samples = mesh.place(devices, networks.noise_images(scale), mesh.SHARDED)
        compiled = make_step(task.setup, devices, resident=False).lower(state, samples).compile()
        exchanges[count] = exchange_sizes(compiled.as_text())
    print(json.dumps(exchanges))


main()
