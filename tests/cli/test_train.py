"""`python -m bin.train` as a user meets it: what it prints, writes and returns, and each mistake in one sentence."""

import json
import re
import shutil
from pathlib import Path

import jax
import matplotlib.image
import numpy as np
import pytest
from helper import read_events, run_forks, run_python, write_splits

from hyperrecon_jax.commands import train
from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runtime.errors import InputError

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "configs" / "quickstart.py")
NUMBERS = {"psnr", "ssim", "mae", "hfen", "rpsnr"}


def run_train(*args, cwd=ROOT, limit=None, small=False):
    """The command; `limit` is the size of the largest file that it can write."""
    command = ["-m", "bin.train"]
    if limit:
        lines = f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
        command = ["-c", lines + "; sys.argv[0] = 'bin/train.py'; runpy.run_module('bin.train', None, '__main__', True)"]
    return run_python(*command, *args, cwd=cwd, small=small)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The settings of a few random images."""
    return write_splits(tmp_path_factory.mktemp("images"), train=12, val=4, test=4)


@pytest.fixture(scope="module")
def config_file(images, tmp_path_factory):
    """Two checkpoints, each with a validation, in a second or two once compiled."""
    file = tmp_path_factory.mktemp("config") / "tiny.py"
    file.write_text(
        f"""
from hyperrecon_jax.config import default_config

def get_config():
    config = default_config()
    config.data.update({images})
    config.model.width, config.model.norm, config.model.hyper_width = 2, "none", 4
    config.train.steps, config.train.batch = 4, 4
    config.train.log_every, config.train.save_every = 1, 2
    return config
"""
    )
    return file


@pytest.fixture(scope="module")
def finished(config_file, tmp_path_factory):
    """The command with small networks, and the folder of its run."""
    workdir = tmp_path_factory.mktemp("finished") / "new" / "run"
    return run_train("--config", config_file, "--workdir", workdir, small=True), workdir


@pytest.fixture(scope="module")
def with_u_nets(config_file, tmp_path_factory):
    """As `finished`, with the networks of the settings."""
    workdir = tmp_path_factory.mktemp("u_nets") / "run"
    return run_train("--config", config_file, "--workdir", workdir), workdir


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished run, to be spoilt."""
    return shutil.copytree(finished[1], tmp_path / "run")


def refused(result, sentence=""):
    """Whether a command ended as it must for a user's mistake."""
    assert result.returncode == 2, result
    *before, last = result.stderr.splitlines()
    assert all(line.startswith("step ") for line in before), result.stderr
    assert last.startswith("error: ")
    assert sentence in last, last
    return last


# A run that goes well.


def test_it_succeeds_and_says_what_is_what(finished):
    result, workdir = finished
    assert result.returncode == 0, result.stderr
    for part in (
        "12 training, 4 validation, 4 test images of 16 x 16",
        "4 steps of 4 images",
        "    lambda      psnr      ssim       mae      hfen     rpsnr",
        f"Look at {workdir}/reconstructions.png; the figures are in {workdir}/summary.json.",
        f"Next: python -m bin.explore --run {workdir} to move lambda and look; tensorboard --logdir {workdir}/tensorboard",
    ):
        assert part in result.stdout


def test_it_says_nothing_that_is_not_its_own(finished):
    """No notice of a library: every line of progress is a step's."""
    lines = finished[0].stderr.splitlines()
    assert [line.split()[1].rstrip(":") for line in lines] == ["1/4", "2/4", "2", "3/4", "4/4", "4"]
    assert all(line.startswith("step ") for line in lines)


def test_the_summary_holds_the_test_scores_at_every_lambda(finished):
    summary = json.loads((finished[1] / "summary.json").read_text())
    assert list(summary["test"]) == ["0", "0.25", "0.5", "0.75", "1"]
    for row in summary["test"].values():
        assert set(row) == NUMBERS | {f"input_{name}" for name in NUMBERS - {"rpsnr"}}
        assert all(isinstance(value, float) and np.isfinite(value) for value in row.values())
    inputs = [{name: row[f"input_{name}"] for name in NUMBERS - {"rpsnr"}} for row in summary["test"].values()]
    assert all(other == inputs[0] for other in inputs)
    assert summary["steps"] == 4
    assert summary["seconds"] > 0
    assert summary["peak_memory_bytes"] > 2**20
    assert summary["test_images"] == 4
    assert set(summary["parameters"]) == {"hypernetwork", "main_network", "trained"}


def test_the_metrics_are_a_line_each(finished):
    rows = [json.loads(line) for line in (finished[1] / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], "val/loss" in row) for row in rows] == [
        (1, False),
        (2, False),
        (2, True),
        (3, False),
        (4, False),
        (4, True),
    ]
    assert all({"train/loss", "train/psnr", "train/grad_norm"} <= set(row) for row in rows if "val/loss" not in row)
    assert all({f"val/{name}" for name in NUMBERS} <= set(row) for row in rows if "val/loss" in row)
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)


def test_the_event_files_hold_the_metrics(finished):
    rows = [json.loads(line) for line in (finished[1] / "metrics.jsonl").read_text().splitlines()]
    expected = [(row["step"], name, value) for row in rows for name, value in row.items() if "/" in name]
    events = [(e.step, v.tag, v.simple_value) for e in read_events(finished[1] / "tensorboard") for v in e.summary.value]
    assert [event[:2] for event in events] == [event[:2] for event in expected]
    np.testing.assert_allclose([event[2] for event in events], [event[2] for event in expected], rtol=1e-6)
    assert "train/loss" in [tag for _, tag, _ in events]


@pytest.mark.slow
def test_u_nets_are_trained_and_drawn(with_u_nets):
    result, workdir = with_u_nets
    assert result.returncode == 0, result.stderr
    assert f"Look at {workdir}/reconstructions.png" in result.stdout
    picture = matplotlib.image.imread(workdir / "reconstructions.png")
    assert picture.shape[0] > 300
    assert picture.shape[1] > 300
    assert picture[..., :3].std() > 0.1


def test_the_folder_holds_what_it_should(finished, config_file):
    names = {path.name for path in finished[1].iterdir()}
    assert names == {"config.json", "checkpoints", "metrics.jsonl", "tensorboard", "summary.json", "reconstructions.png"}
    assert {path.name for path in (finished[1] / "checkpoints").iterdir()} == {"2", "4"}
    assert json.loads((finished[1] / "config.json").read_text())["train"]["steps"] == 4


def test_again_it_is_finished_and_changes_nothing(finished, forks):
    result, _ = forks["again"]
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("This run is finished already.\nLook at ")
    assert contents(finished[1]) == forks["contents before"]


@pytest.mark.slow
def test_dry_run_writes_nothing(config_file, tmp_path):
    result = run_train("--config", config_file, "--dry-run", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "s a step" in result.stdout
    assert result.stdout.endswith("No run was started. Leave out --dry-run to train.\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_how_lambda_acts_is_a_setting(config_file, tmp_path):
    """FiLM: 56 numbers of norms for a hypernetwork of width 4 to make; the rest of the U-Net is learned directly."""
    film = ("--config", config_file, "--dry-run", "--config.model.conditioning=film")
    result = run_train(*film, "--config.model.norm=instance", "--config.model.encoding=circle", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    generated, main = 14 * 2 * 2, count_of(UNet(width=2))
    hyper = 5 * 4 + 3 * 5 * 4 + generated * 5
    assert f"hypernetwork of {hyper} parameters, main network of {main}; {hyper + main - generated:,} " in result.stdout
    result = run_train(*film, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: config.model.norm must be batch or instance where config.model.conditioning")


def count_of(network):
    shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros((16, 16, 2), np.float32))["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_flags_may_be_in_a_file(forks):
    """The sentence has a value of the file and one of the command line."""
    result, _ = forks["flag file"]
    assert refused(result, "config.dhs.keep must be at least 1 and at most config.train.batch, 6, got 9.")


def test_help_shows_how_and_our_flags_alone(forks):
    result, _ = forks["help"]
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Train a reconstruction network for every lambda.\n")
    assert "python -m bin.train --config configs/quickstart.py" in result.stdout
    flags = [line.split()[0] for line in result.stdout.partition("Flags:\n")[2].splitlines()]
    assert flags == ["--config", "--workdir", "--dry-run", "--coordinator", "--processes", "--process"]


# Mistakes on the command line and in the config file. Each ends before anything is written.


COMMAND_LINES = [
    ([], "Say what to train: --config configs/quickstart.py"),
    (["--config"], "--config must name one file."),
    (["--config="], "--config must name one file."),
    (["--config", QUICKSTART, "--config", QUICKSTART], "--config must name one file."),
    (["--config", "nowhere.py"], "The config file nowhere.py cannot be used: No such file or directory."),
    (["--config", str(ROOT)], "cannot be used: Is a directory."),
    (["--config", f"{QUICKSTART}:XL"], "quickstart.py cannot be used: it has no variants"),
    (["--config", str(ROOT / "configs/paper_denoise.py:XL")], "The variant must be one of S, M, L; got 'XL'."),
    (["--config.train.steps=3"], "--config.train.steps=3 changes a setting of a config file: name one first"),
    (["--config.train.steps=3", "--config", QUICKSTART], "Found --config.train.steps=3 in argv before"),
    (
        ["--config", QUICKSTART, "--config.trian.steps=3"],
        "config.trian.steps is not a setting; did you mean config.train",
    ),
    (["--config", QUICKSTART, "--config.train.steps=many"], "--config.train.steps=many: invalid literal for int()"),
    (["--config", QUICKSTART, "--config.train.steps"], "Missing value for flag --config.train.steps"),
    (["--config", QUICKSTART, "--config.lam.value=1.5"], "config.lam.value must be 1 number in [0, 1] for 2 terms"),
    (["--config", QUICKSTART, "--fast"], "Unknown command line flag 'fast'; see --help."),
    (["--config", QUICKSTART, "--dry-run=perhaps"], "flag --dry-run=perhaps: "),
    (["--config", QUICKSTART, "extra"], "Unknown argument 'extra'; see --help."),
]
CONFIG_FILES = [
    ("def get_config(:\n", "cannot be used: SyntaxError: invalid syntax (mine.py, line 1)."),
    ("x = 1\n", "cannot be used: it has no function get_config."),
    ("import nosuchmodule\n", "cannot be used: ModuleNotFoundError: No module named 'nosuchmodule' (line 1)."),
    ("def get_config():\n    return 1 / 0\n", "cannot be used: ZeroDivisionError: division by zero (line 2)."),
    ("def get_config():\n    return 3\n", "must return a ConfigDict"),
    ("def get_config():\n    pass\n", "must return a ConfigDict"),
    ("def get_config():\n    return open('gone')\n", "cannot be used: No such file or directory (line 2)."),
    (
        "from hyperrecon_jax.config import default_config\n"
        "def get_config():\n    config = default_config()\n    config.train.stepz = 3\n    return config\n",
        "cannot be used: stepz is not a setting, unlike steps (line 4).",
    ),
    (
        "from hyperrecon_jax.config import default_config\n"
        "def get_config():\n    config = default_config()\n    config.trian.steps = 3\n    return config\n",
        "cannot be used: trian is not a setting, unlike train (line 4).",
    ),
    (
        "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'train': {'stepz': 3}})\n",
        "config.train.stepz is not a setting; did you mean config.train.steps?",
    ),
]
# the default work folder by the config
DEFAULT_FOLDERS = {"quickstart": QUICKSTART, "paper_denoise-S": str(ROOT / "configs" / "paper_denoise.py:S")}
AMORTIZED = ["--config", str(ROOT / "configs" / "ao_quickstart.py")]
AMORTIZED_MISTAKES = [
    (["--config.dhs.keep=9"], "config.dhs.keep must be at least 1 and at most config.train.batch, 8, got 9."),
    (["--config.dhs.keep=0"], "config.dhs.keep must be at least 1 and at most config.train.batch, 8, got 0."),
    (["--config.dhs.keep=few"], "flag --config.dhs.keep=few: invalid literal for int()"),
    (
        ["--config.loss.terms=weight_l1,total_variation", "--config.loss.scales=1,1"],
        "config.dhs.keep must be config.train.batch, 8, without data_consistency in config.loss.terms",
    ),
    (
        ["--config.loss.terms=data_consistency,mae", "--config.loss.scales=1,1"],
        "config.loss.terms must be free of mae, which compare with the truth, where config.loss.ground_truth is False",
    ),
]


@pytest.fixture(scope="module")
def forks(finished, config_file, tmp_path_factory):
    """By arguments, by the content of a config file `mine.py` or by a name: the finished command, and where it ran.

    All are forks of one process. "contents before" are those of the finished run's folder.
    """
    again = ["--config", config_file, "--workdir", finished[1]]
    cases = {tuple(args): args for args, _ in COMMAND_LINES}
    cases |= {tuple(args): [*AMORTIZED, *args] for args, _ in AMORTIZED_MISTAKES}
    cases |= {content: ["--config", "mine.py"] for content, _ in CONFIG_FILES}
    cases |= {name: ["--config", config] for name, config in DEFAULT_FOLDERS.items()}
    cases |= {"again": again, "another": [*again, "--config.task.acceleration=8"], "help": ["--help"]}
    cases["flag file"] = ["--flagfile=flags.txt", "--config.dhs.keep=9"]
    folders = {case: tmp_path_factory.mktemp("fork") for case in cases}
    for content, _ in CONFIG_FILES:
        (folders[content] / "mine.py").write_text(content)
    (folders["flag file"] / "flags.txt").write_text(f"--config={AMORTIZED[1]}\n--config.train.batch=6\n")
    for name in DEFAULT_FOLDERS:
        (folders[name] / "runs" / name).mkdir(parents=True)
        (folders[name] / "runs" / name / "mine.txt").touch()
    before = contents(finished[1])
    imports = ["hyperrecon_jax.cli.train", "hyperrecon_jax.commands.train"]
    results = run_forks("bin.train", list(zip(cases.values(), folders.values(), strict=True)), imports=imports)
    return {"contents before": before, **dict(zip(cases, zip(results, folders.values(), strict=True), strict=True))}


def join_args(value):
    """The name of a case: its arguments, without the sentence."""
    return " ".join(value).replace(str(ROOT), "") if isinstance(value, list) else ""


@pytest.mark.parametrize(("args", "sentence"), COMMAND_LINES, ids=join_args)
def test_mistakes_on_the_command_line(forks, args, sentence):
    result, folder = forks[tuple(args)]
    assert refused(result, sentence) + "\n" == result.stderr
    assert result.stdout == ""
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("content", "sentence"), CONFIG_FILES)
def test_mistakes_in_the_config_file(forks, content, sentence):
    result, folder = forks[content]
    assert refused(result, sentence) + "\n" == result.stderr
    assert [path.name for path in folder.iterdir() if path.name != "__pycache__"] == ["mine.py"]


@pytest.mark.parametrize(("args", "sentence"), AMORTIZED_MISTAKES, ids=join_args)
def test_mistakes_in_amortized_optimization(forks, args, sentence):
    result, folder = forks[tuple(args)]
    assert refused(result, sentence) + "\n" == result.stderr
    assert list(folder.iterdir()) == []


# Mistakes in data and settings that only the data tell, through the function behind the command.


def settings(data, **changed):
    nested = {"data": dict(data), "model": {"width": 2, "hyper_width": 4}, "train": {"batch": 4}}
    for name, value in changed.items():
        group, name = name.split("__")
        nested.setdefault(group, {})[name] = value
    return complete(nested)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((12, 16, 16), np.inf), "must hold finite numbers, but image 0 has infinity"),
        (np.zeros((16, 16)), r"must have shape \(n, h, w\)"),
        (np.zeros((12, 24, 24)), "config.data.val must hold images of the size of those of config.data.train"),
        (np.zeros((3, 16, 16)), "config.train.batch must be at most the 3 training images, got 4"),
    ],
)
def test_wrong_arrays(images, tmp_path, array, message):
    np.save(tmp_path / "train.npy", array)
    with pytest.raises(InputError, match=message):
        train.train(settings(images, data__train=str(tmp_path / "train.npy")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [None, b"", b"no array"])
def test_files_that_cannot_be_read(images, tmp_path, content):
    if content is not None:
        (tmp_path / "train.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"^config\.data\.train .*train\.npy must be a \.npy file"):
        train.train(settings(images, data__train=str(tmp_path / "train.npy")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task__noise": "rician"}, 'config.task.noise must be "gaussian" for k-space'),
        (
            {"task__name": "super_resolution", "task__factor": 3},
            "config.task.factor must divide the image's sides, 16 x 16",
        ),
        ({"task__acceleration": 300.0}, "`acceleration` 300.0 leaves"),
    ],
)
def test_settings_that_do_not_fit_the_data(images, tmp_path, changed, message):
    with pytest.raises(InputError, match=message):
        train.train(settings(images, **changed), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_too_small_for_a_loss(images, tmp_path):
    data = write_splits(tmp_path, shape=(8, 8), train=4, val=4, test=4)
    with pytest.raises(InputError, match="at least 11 pixels for SSIM, got 8 x 8"):
        train.train(settings(data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Mistakes with the work folder.


def test_another_experiment_in_the_folder_is_refused(finished, forks):
    result, _ = forks["another"]
    assert refused(result, "holds another experiment: task.acceleration (4.0 there, 8.0 here)") + "\n" == result.stderr
    assert contents(finished[1]) == forks["contents before"]


@pytest.mark.usefixtures("small_network")
def test_a_damaged_checkpoint_is_named_and_nothing_changes(copy):
    for path in (copy / "checkpoints" / "4" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:40])
    before = contents(copy)
    longer = json.loads((copy / "config.json").read_text())
    longer["train"]["steps"] = 6
    with pytest.raises(InputError, match=re.escape(f"The checkpoint {copy}/checkpoints/4 is damaged: its file state/")):
        train.train(complete(longer), copy, say=lambda _: None)
    assert contents(copy) == before


def test_a_damaged_summary_is_named_and_nothing_changes(copy, images, config_file):
    for content in ('{"test": ', "{}", "[]"):
        (copy / "summary.json").write_text(content)
        with pytest.raises(InputError, match=r"summary\.json .*delete"):
            train.train(complete(json.loads((copy / "config.json").read_text())), copy)
        assert (copy / "summary.json").read_text() == content


@pytest.mark.slow
def test_a_disk_that_fails_under_way_keeps_what_was_saved(with_u_nets, config_file, tmp_path):
    """No file may grow beyond 40 kB, which is less than the largest of a checkpoint's."""
    copy = shutil.copytree(with_u_nets[1], tmp_path / "run")
    before = contents(copy / "checkpoints")
    result = run_train("--config", config_file, "--workdir", copy, "--config.train.steps=8", limit=40_000)
    refused(result, f"The work folder {copy} cannot be written: File too large; what was saved before is kept")
    after = contents(copy / "checkpoints")
    assert {path: after[path] for path in before} == before
    rows = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows[:6]] == [1, 2, 2, 3, 4, 4]


@pytest.mark.usefixtures("small_network")
def test_a_full_disk_is_told_before_anything_is_written(images, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 2**40, 0))
    with pytest.raises(InputError, match="has 0 MiB free"):
        train.train(settings(images, model__norm="none"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", DEFAULT_FOLDERS)
def test_the_default_folder_is_named_after_the_config(forks, name):
    """Told without training: the folder is taken already."""
    refused(forks[name][0], f"The work folder runs/{name} is not empty and holds no config.json")
