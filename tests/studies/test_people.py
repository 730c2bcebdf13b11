"""The people of a study: who can be read, and whom no run saw in training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperrecon_jax.config import default_config
from hyperrecon_jax.data.subjects import order_subjects
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies import reconstruction_methods as methods
from hyperrecon_jax.studies.people import People, keep_unseen, person_statistics, read_people

SIZE = 32


def test_statistics_are_over_people():
    """Three slices of one person weigh as much as one of another."""
    subjects = np.array([0, 0, 0, 1], np.int32)
    values = {"psnr": np.array([30.0, 31.0, 32.0, 25.0])}
    # of two people, a quarter of the resamples has one of them twice
    assert person_statistics(values, subjects) == {"psnr": {"mean": 28.0, "low": 25.0, "high": 31.0}}


def test_people_who_cannot_be_read_are_left_out(tmp_path):
    for person, pixels in (("anna", np.eye(SIZE)), ("bert", np.zeros((SIZE, SIZE)))):
        (tmp_path / person).mkdir()
        Image.fromarray((255 * pixels).astype(np.uint8)).save(tmp_path / person / "1.png")
    lines = []
    people = read_people(tmp_path, slices=2, size=SIZE, say=lines.append)
    assert (people.names, people.images.shape) == (["anna"], (1, SIZE, SIZE, 1))
    assert lines[0].startswith("Left out: bert: ")
    (tmp_path / "anna" / "1.png").unlink()
    with pytest.raises(InputError, match="none can be used"):
        read_people(tmp_path, slices=2, size=SIZE, say=lines.append)


def test_people_whom_a_run_saw_are_not_scored(tmp_path, monkeypatch):
    """The second run was trained on the same folder, before the first went on from it on other images."""
    root, names = tmp_path / "people", [f"person{i}" for i in range(12)]
    images = np.arange(24, dtype=np.float32)[:, None, None, None]
    people = People(images, np.repeat(np.arange(12, dtype=np.int32), 2), names)
    first, second = default_config(), default_config()
    first.data.source, first.train.init_from = "broad", "runs/second"
    second.data.source, second.data.root, second.data.subjects, second.data.seed = "folder", str(root), (7, 2, 3), 5
    monkeypatch.setattr(methods, "read_config", lambda run: {"first": first, "second": second}[run.name])
    unseen = keep_unseen(people, root, [Path("runs/first")])
    assert unseen.names == sorted(order_subjects(names, 5)[:3], key=names.index)
    expected = [image for name in unseen.names for image in (2 * names.index(name), 2 * names.index(name) + 1)]
    assert unseen.images.ravel().tolist() == expected
    assert unseen.subjects.tolist() == [0, 0, 1, 1, 2, 2]
    elsewhere = keep_unseen(people, tmp_path / "others", [Path("runs/first")])
    assert elsewhere.names == names
    first.train.init_from, first.data.source, first.data.root = "", "folder", str(root)
    first.data.subjects, first.data.seed, second.data.subjects = (7, 2, 1), 0, (7, 2, 1)
    with pytest.raises(InputError, match="whom none of the runs saw"):
        keep_unseen(people, root, [Path("runs/first"), Path("runs/second")])
