"""A folder of small runs, images, configs and plans, good and bad, where the command lines of `mistakes.py` are tried."""

import json
import os
import shutil

import numpy as np
from helper import npy_bytes

CONFIG = """
from hyperrecon_jax.config import default_config

def get_config():
    config = default_config()
    config.data.source, config.data.train, config.data.val, config.data.test = "arrays", *3 * ["images.npy"]
    config.model.width, config.model.hyper_width, config.model.iterations = 2, 3, 2
    config.train.steps, config.train.batch, config.train.log_every = 4, 4, 1
    config.task.acceleration = 2.0
{}    return config
"""
CONFIGS = {
    "good.py": CONFIG.format(""),
    "ao.py": CONFIG.format(
        "    config.loss.terms = ('data_consistency', 'weight_l1', 'total_variation')\n"
        "    config.loss.scales, config.loss.ground_truth = (1.0, 1.0, 1.0), False\n"
    ),
    "made.py": CONFIG.format(
        "    config.data.source, config.data.size, config.data.subjects, config.data.slices = 'mni', 32, (1, 1, 1), 4\n"
    ),
    "scans.py": CONFIG.format(
        "    config.data.source, config.data.root, config.data.size = 'folder', 'scans', 32\n"
        "    config.data.subjects, config.data.slices = (1, 1, 1), 4\n"
    ),
    "ranges.py": CONFIG.format("    config.task.sigma, config.task.acceleration = (0.0, 0.1), (2.0, 4.0)\n"),
    "late_key.py": CONFIG.format("    config.train.stepz = 3\n"),
    "late_group.py": CONFIG.format("    config.trian.steps = 3\n"),
    "wrong_type.py": CONFIG.format("    config.train.steps = 'many'\n"),
    "exits.py": "import sys\ndef get_config():\n    sys.exit('bye')\n",
    "exits_well.py": "raise SystemExit(0)\n",
    "ends.py": "def get_config():\n    quit()\n",
    "raises.py": "def get_config():\n    raise OSError(28, 'No space left on device')\n",
    "raises_lines.py": "def get_config():\n    raise RuntimeError('first line\\n\\nsecond line\\x1b[31m red')\n",
    "recurses.py": "def get_config():\n    return get_config()\n",
    "divides.py": "def get_config():\n    return 1 / 0\n",
    "prints.py": "print('hello')\ndef get_config():\n    print('world')\n    return 3\n",
    "returns_none.py": "def get_config():\n    pass\n",
    "returns_dict.py": "def get_config():\n    return {'train': {'steps': 3}}\n",
    "generator.py": "def get_config():\n    yield 3\n",
    "no_function.py": "x = 1\n",
    "no_call.py": "get_config = 3\n",
    "needs_more.py": "def get_config(a, b):\n    return a\n",
    "syntax.py": "def get_config(:\n",
    "tabs.py": "def get_config():\n    x = 1\n\treturn x\n",
    "imports.py": "import nosuchmodule\n",
    "opens.py": "def get_config():\n    return open('gone')\n",
    "unknown_key.py": "from ml_collections import ConfigDict\n"
    "def get_config():\n    return ConfigDict({'train': {'stepz': 3}})\n",
    "empty.py": "",
    "plan_exits.py": "import sys\ndef get_plan():\n    sys.exit(0)\n",
    "plan_none.py": "def get_plan():\n    pass\n",
    "plan_raises.py": "def get_plan():\n    return {}['x']\n",
    "plan_syntax.py": "def get_plan(:\n",
    "plan_required.py": "def get_plan(*, folder):\n    pass\n",
    "plan_prints.py": "print('hello')\ndef get_plan():\n    print('world')\n    return 3\n",
}
SETTINGS = {
    "data": {"source": "arrays", **dict.fromkeys(("train", "val", "test"), "images.npy")},
    "loss": {"terms": ("mae", "ssim")},
    "model": {"width": 2, "hyper_width": 3, "iterations": 2},
    "task": {"acceleration": 2.0},
    "train": {"steps": 4, "batch": 4},
}
RUNS = {
    "run": {},
    "other": {"loss": {"terms": ("mse", "ssim")}},
    "unet": {"model": {"hyper_width": 0}, "lam": {"sampling": "constant", "value": (0.5,)}},
    "ensemble": {"model": {"hyper_width": 0}, "lam": {"sampling": "ensemble", "axes": ((0.0, 1.0),)}},
    "three": {"loss": {"terms": ("mae", "ssim", "mse"), "scales": (1.0, 1.0, 1.0)}},
    "unrolled": {"model": {"network": "unrolled"}},
    "range": {"model": {"network": "unrolled"}, "task": {"acceleration": (2.0, 4.0), "sigma": (0.0, 0.1)}},
    "mixture": {"model": {"conditioning": "mixture"}},
    "circle": {"model": {"encoding": "circle"}},
    "denoising": {"task": {"name": "denoising", "sigma": 0.1}},
    "segment": {
        "data": {"source": "mni", "size": 32, "subjects": (1, 1, 1), "slices": 4},
        "loss": {"terms": ("soft_dice",), "scales": (1.0,)},
        "model": {"hyper_width": 0, "residual": False},
        "lam": {"sampling": "constant", "value": ()},
        "task": {"name": "segmentation", "acceleration": 4.0},
    },
    "lost_images": {"data": dict.fromkeys(("train", "val", "test"), "gone.npy")},
}


def build(folder, *, has_runs=True):
    """Make the folder. Nothing in it was trained: the variables of its runs are zeros. To make them takes seconds."""
    folder.mkdir()
    before = os.getcwd()
    os.chdir(folder)  # the settings name their images by relative paths
    try:
        _write_images(folder)
        for name, text in CONFIGS.items():
            (folder / name).write_text(text)
        (folder / "binary.py").write_bytes(b"\xff\xfe\x00get_config")
        (folder / "latin.py").write_bytes("NAME = 'é'\ndef get_config():\n    return 3\n".encode("latin-1"))
        if has_runs:
            for name, changes in RUNS.items():
                _write_run(folder / name, changes)
            _write_damaged_runs(folder)
        _write_scans(folder / "scans")
        _write_odd_files(folder)
    finally:
        os.chdir(before)


def _write_images(folder):
    rng = np.random.default_rng(0)
    for name, images in {
        "images": rng.random((6, 16, 16), np.float32),
        "larger": rng.random((6, 24, 24), np.float32),
        "tiny": rng.random((6, 8, 8), np.float32),
        "flat": rng.random((16, 16), np.float32),
        "five": rng.random((1, 6, 1, 16, 16), np.float32),
        "none": np.zeros((0, 16, 16), np.float32),
        "nan": np.full((6, 16, 16), np.nan, np.float32),
        "infinite": np.full((6, 16, 16), np.inf, np.float32),
        "hundred": 100 * rng.random((6, 16, 16), np.float32),
        "complex": rng.random((6, 16, 16)).astype(np.complex64),
        "text": np.full((6, 16, 16), "a"),
        "dates": np.zeros((6, 16, 16), "datetime64[s]"),
        "objects": np.full((2,), None, object),
        "scalar": np.float32(3),
    }.items():
        np.save(folder / f"{name}.npy", images)
    np.savez(folder / "archive.npz", images=rng.random((6, 16, 16)))
    np.savez(folder / "archive.npy.npz", images=rng.random((6, 16, 16)))
    os.rename(folder / "archive.npy.npz", folder / "archive.npy")
    header = npy_bytes(np.zeros((6, 16, 16), np.float32))
    (folder / "petabytes.npy").write_bytes(header.replace(b"(6, 16, 16), }", b"(9**17,8,8)}").ljust(len(header)))
    for name, shape in {"petabytes": "(2000000000, 1024, 1024)", "more": "(99999999999999, 16, 16)"}.items():
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        (folder / f"{name}.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    (folder / "cut.npy").write_bytes(header[:1000])
    (folder / "nothing.npy").write_bytes(b"")
    (folder / "words.npy").write_text("no array")
    (folder / "no_header.npy").write_bytes(b"\x93NUMPY\x01\x00\xff\xffx")


def _write_run(folder, changes):
    import jax  # here, because it takes seconds to import

    from hyperrecon_jax.runs import slim_run
    from hyperrecon_jax.runs.config import complete
    from hyperrecon_jax.runs.experiment import make_model

    config = complete({group: {**SETTINGS.get(group, {}), **changes.get(group, {})} for group in {*SETTINGS, *changes}})
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), make_model(config)[1])
    slim_run.write(folder, config.to_dict(), variables, steps=4)


def _write_damaged_runs(folder):
    settings = json.loads((folder / "run" / "config.json").read_text())
    for name in ("not_json", "a_list", "old", "cut_variables", "other_variables", "no_variables", "no_config"):
        shutil.copytree(folder / "run", folder / "damaged" / name)
    damaged = folder / "damaged"
    (damaged / "not_json" / "config.json").write_text("{")
    (damaged / "a_list" / "config.json").write_text("[]")
    (damaged / "old" / "config.json").write_text(json.dumps({**settings, "speed": 3}))
    content = (damaged / "cut_variables" / "variables.npz").read_bytes()
    (damaged / "cut_variables" / "variables.npz").write_bytes(content[:100])
    shutil.copy(folder / "three" / "variables.npz", damaged / "other_variables" / "variables.npz")
    (damaged / "no_variables" / "variables.npz").unlink()
    (damaged / "no_config" / "config.json").unlink()
    (folder / "begun" / "checkpoints").mkdir(parents=True)
    shutil.copy(folder / "run" / "config.json", folder / "begun" / "config.json")
    for name, text in {
        "not_json": "{",
        "a_list": "[]",
        "old": json.dumps({**settings, "speed": 3}),
        "other": (folder / "other" / "config.json").read_text(),
    }.items():
        shutil.copytree(folder / "begun", folder / "begun_runs" / name)
        (folder / "begun_runs" / name / "config.json").write_text(text)
    shutil.copytree(folder / "begun", folder / "summary")
    (folder / "summary" / "summary.json").write_text('{"test": ')


def _write_scans(folder):
    rng = np.random.default_rng(1)
    for subject in "abc":
        (folder / subject).mkdir(parents=True)
        np.save(folder / subject / "slices.npy", rng.random((2, 32, 32), np.float32))


def _write_odd_files(folder):
    (folder / "file.txt").write_text("a file\n")
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").touch()
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop.py").symlink_to("loop.py")
    (folder / "folder.npy").mkdir()
    (folder / "folder.onnx").mkdir()
    (folder / "folder.py").mkdir()
    os.mkfifo(folder / "fifo.npy")
    for name in ("locked", "secret", "locked_run"):
        (folder / name).mkdir()
    if (folder / "run").exists():
        shutil.copytree(folder / "run", folder / "locked_run", dirs_exist_ok=True)
    shutil.copy(folder / "images.npy", folder / "secret.npy")
    shutil.copy(folder / "good.py", folder / "secret.py")
    for path, mode in (("locked", 0o555), ("locked_run", 0o555), ("secret", 0), ("secret.npy", 0), ("secret.py", 0)):
        (folder / path).chmod(mode)


def snapshot(folder):
    """What lies in the folder: by path its kind and rights, and of a file its size and when it was written.

    The time of a folder is no part of it: it changes with a lock, which is a file that comes and goes.
    """
    paths = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = os.lstat(os.path.join(root, name))
            content = (status.st_size, status.st_mtime_ns) if name in files else ()
            paths[os.path.relpath(os.path.join(root, name), folder)] = (status.st_mode, *content)
    return paths
