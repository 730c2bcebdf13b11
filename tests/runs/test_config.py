"""The settings: defaults, what replaces them, and every mistake by its name."""

import importlib.util
import inspect
import json
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from hyperrecon_jax.runs import config, run_folder
from hyperrecon_jax.runtime.errors import InputError

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


def nested(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def set_to(key, value, **others):
    """Settings with one key replaced, and others by `group__name`."""
    settings = nested(key, value)
    for name, other in others.items():
        group, name = name.split("__")
        settings.setdefault(group, {})[name] = other
    return config.complete(settings)


def test_no_settings_give_the_default():
    assert config.complete({}).to_dict() == config.default_config().to_dict()
    assert config.complete(config.default_config()).to_dict() == config.default_config().to_dict()


def test_a_setting_replaces_its_default_and_nothing_else():
    changed = config.flatten(set_to("train.batch", 16))
    default = config.flatten(config.default_config())
    assert {key: value for key, value in changed.items() if value != default[key]} == {"train.batch": 16}


def test_the_settings_of_the_caller_are_not_changed():
    settings = {"train": {"learning_rate": 1}, "loss": {"scales": [1, 1]}}
    config.complete(settings)
    assert settings == {"train": {"learning_rate": 1}, "loss": {"scales": [1, 1]}}


def test_default_config_is_locked():
    with pytest.raises(AttributeError):
        config.default_config().train.stepz = 3
    with pytest.raises(AttributeError):
        config.complete({}).trian = 3


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("train.stepz", r"; did you mean config\.train\.steps\?"),
        ("trian.steps", r"; did you mean config\.train\.steps\?"),
        ("sede", r"; did you mean config\.seed\?"),
        ("zzzzzzzz", r"\."),
        ("train.steps.more", ""),
    ],
)
def test_unknown_keys_are_named_with_the_nearest(key, hint):
    for settings in (nested(key, 3), ConfigDict(nested(key, 3))):
        with pytest.raises(InputError, match=rf"^config\.{key} is not a setting{hint}"):
            config.complete(settings)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("train.learning_rate", 1, 1.0),
        ("loss.scales", [2, 3.0], (2, 3.0)),
        ("data.subjects", [3, 1, 1], (3, 1, 1)),
        ("model.residual", False, False),
    ],
)
def test_similar_types_are_converted(key, value, expected):
    converted = config.flatten(set_to(key, value, train__batch=2))[key]
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.steps", True),
        ("train.steps", 2.0),
        ("train.steps", "3"),
        ("train.learning_rate", True),
        ("train.learning_rate", "fast"),
        ("model.residual", 1),
        ("loss.terms", "mae"),
        ("data.train", None),
        ("train", 3),
    ],
)
def test_other_types_are_refused(key, value):
    with pytest.raises(InputError, match=rf"^config\.{key} (must be of type|is not a setting)"):
        config.complete(nested(key, value))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seed", -1, "at least 0"),
        ("data.source", "imagenet", "one of mni, broad, arrays"),
        ("data.placement", "cloud", "one of auto, device, host"),
        ("data.size", 100, "a positive multiple of 8"),
        ("data.size", 0, "a positive multiple of 8"),
        ("data.size", 80_000, "a positive multiple of 8"),
        ("data.subjects", (1, 2), "three numbers of at least 1"),
        ("data.subjects", (100, 0, 50), "three numbers of at least 1"),
        ("data.subjects", (100, "a", 50), "three numbers of at least 1"),
        ("data.slices", 0, "at least 1"),
        ("data.seed", -1, "at least 0"),
        ("task.name", "ct", "one of csmri, denoising, super_resolution"),
        ("task.noise", "pink", "one of gaussian, rician"),
        ("task.sigma", -0.1, "at least 0"),
        ("task.sigma", float("nan"), "finite"),
        ("task.mask", "radial", "one of poisson_disc"),
        ("task.mask_seed", -1, "at least 0"),
        ("task.factor", 0, "at least 1"),
        ("loss.terms", (), "at least one term"),
        ("loss.scales", (1.0,), "one number for each of config.loss.terms"),
        ("loss.scales", (1.0, 0.0), "numbers above 0"),
        ("loss.scales", (1.0, "a"), "numbers above 0"),
        ("loss.terms", ("mae", "vgg"), "among mae, mse"),
        ("loss.terms", ("mae", "mae"), "terms that differ from one another"),
        ("loss.ground_truth", 0, "of type bool"),
        ("loss.pilot_steps", 0, "at least 1"),
        ("dhs.rank", "best", "one of absolute, relative"),
        ("dhs.keep", 0, "at least 1 and at most config.train.batch, 32"),
        ("dhs.keep", 33, "at least 1 and at most config.train.batch, 32"),
        ("dhs.keep", 8, "config.train.batch, 32, without data_consistency in config.loss.terms"),
        ("dhs.keep", 8.0, "of type int"),
        ("lam.sampling", "gaussian", "one of uniform, endpoints, constant"),
        ("lam.endpoint_probability", 1.5, r"in \[0, 1\]"),
        ("lam.value", (1.5,), r"1 number in \[0, 1\] for 2 terms"),
        ("lam.value", (-0.1,), r"1 number in \[0, 1\] for 2 terms"),
        ("lam.value", (0.1, 0.2), r"1 number in \[0, 1\] for 2 terms"),
        ("lam.value", (True,), r"1 number in \[0, 1\] for 2 terms"),
        ("model.norm", "layer", "one of"),
        ("model.width", 0, "at least 1"),
        ("model.hyper_width", -1, "at least 0"),
        ("model.hyper_width", 0, 'above 0 unless config.lam.sampling is "constant"'),
        ("model.conditioning", "conv", "one of dense, low_rank, mixture, film"),
        ("model.encoding", "square", "one of coefficients, circle"),
        ("model.rank", 0, "at least 1"),
        ("train.steps", 0, "at least 1"),
        ("train.steps", 10**12, r"at least 1 and below 2\^31"),
        ("model.iterations", 10**8, "at least 1 and at most 100"),
        ("lam.axes", (0.5,), "1 tuples of rising numbers"),
        ("train.batch", 0, "at least 1"),
        ("train.batch", 11_401, "at most the 11400 training images"),
        ("train.learning_rate", 0.0, "above 0"),
        ("train.learning_rate", float("nan"), "finite"),
        ("train.schedule", "cosin", "one of constant, cosine"),
        ("train.warmup", -1, "at least 0"),
        ("train.clip", -1.0, "at least 0"),
        ("train.log_every", 0, "at least 1"),
        ("train.save_every", 0, "at least 1"),
        ("train.keep", 0, "at least 1"),
        ("train.validation_images", 0, "at least 1"),
    ],
)
def test_values_that_no_experiment_can_have(key, value, expected):
    with pytest.raises(InputError, match=rf"^config\.{key} must be {expected}.*, got .*\.$"):
        set_to(key, value)


MASKS = ("poisson_disc", "random_lines")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("task.acceleration", (2, 8), (2.0, 8.0)),
        ("task.acceleration", [2.0, 8.0], (2.0, 8.0)),
        ("task.acceleration", (4,), 4.0),  # a command line's `4`, where the file has a range
        ("task.acceleration", 8, 8.0),
        ("task.sigma", (0, 0.1), (0.0, 0.1)),
        ("task.mask", list(MASKS), MASKS),
        ("task.mask", "poisson_disc,random_lines", MASKS),  # a command line's, where the file has one mask
        ("task.mask", ("poisson_disc,random_lines",), MASKS),  # where the file has several
        ("task.mask", ("random_lines",), "random_lines"),
    ],
)
def test_acquisitions_are_values_or_ranges(key, value, expected):
    settings = set_to(key, value)
    assert config.flatten(settings)[key] == expected
    assert config.differences(settings.to_dict(), json.loads(json.dumps(settings.to_dict()))) == []


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("task.acceleration", "abc", "of type float, such as 4.0"),
        ("task.acceleration", "2,8", r"a number, or \(lowest, highest\) of at least 1"),
        ("task.acceleration", (8.0, 2.0), r"a number, or \(lowest, highest\) of at least 1"),
        ("task.acceleration", (0.5, 2.0), r"a number, or \(lowest, highest\) of at least 1"),
        ("task.acceleration", (2.0, 4.0, 8.0), r"a number, or \(lowest, highest\) of at least 1"),
        ("task.acceleration", (True, 2.0), r"a number, or \(lowest, highest\) of at least 1"),
        ("task.acceleration", (), r"a number, or \(lowest, highest\) of at least 1"),
        ("task.sigma", "abc", "of type float, such as 0.0"),
        ("task.sigma", None, "of type float, such as 0.0"),
        ("task.sigma", (0.0, float("nan")), r"a number, or \(lowest, highest\) of at least 0"),
        ("task.mask", ("poisson_disc", "radial"), "one of poisson_disc, .*, or several of them"),
        ("task.mask", ("poisson_disc", "poisson_disc"), "one of poisson_disc, .*, or several of them"),
        ("task.mask", (["poisson_disc"], "random_lines"), "one of poisson_disc, .*, or several of them"),
        ("task.mask", 3, "of type str"),
        ("task.name", 3, "of type str"),
        ("task.factor", 2.5, "of type int"),
    ],
)
def test_wrong_types_of_the_task_are_one_sentence(key, value, expected):
    with pytest.raises(InputError, match=rf"^config\.{key} must be {expected}.*, got .*\.$"):
        set_to(key, value)


def test_ranges_are_of_kspace_from_images():
    with pytest.raises(InputError, match=r'config\.task\.name must be "csmri" where config\.task has a range'):
        set_to("task.sigma", (0.0, 0.1), task__name="denoising")
    with pytest.raises(InputError, match=r"config\.data\.coils must be 0 where config\.task has a range"):
        set_to("task.sigma", (0.0, 0.1), data__coils=4, data__source="fastmri", data__root="files")


def test_lambdas_are_one_fewer_than_terms():
    three = {"loss__terms": ("data_consistency", "weight_l1", "total_variation"), "loss__scales": (1.0, 1.0, 1.0)}
    assert set_to("lam.value", (0.5, 1), lam__sampling="constant", **three).lam.value == (0.5, 1)
    with pytest.raises(InputError, match=r"config\.lam\.value must be 2 numbers in \[0, 1\] for 3 terms, got \(0\.5,\)"):
        set_to("lam.value", (0.5,), lam__sampling="constant", **three)
    with pytest.raises(InputError, match=r"config\.lam\.value must be 1 number .* got \(\)"):
        set_to("lam.sampling", "constant")


def test_film_needs_a_norm():
    with pytest.raises(InputError, match=r'config\.model\.norm must be batch or instance where .*conditioning is "film"'):
        set_to("model.conditioning", "film", model__norm="none")
    assert set_to("model.conditioning", "film", model__norm="batch").model.conditioning == "film"


def test_a_run_of_an_older_version_has_the_papers_hypernetwork(tmp_path):
    papers = config.paper_config("L").to_dict()
    settings = json.loads(json.dumps(papers))
    for key in ("conditioning", "rank", "encoding", "network", "iterations", "normalize"):
        del settings["model"][key]
    run_folder.write_json(tmp_path / run_folder.CONFIG, settings)
    stored = run_folder.read_settings(tmp_path)
    assert config.differences(stored, papers) == []
    model = config.complete(stored).model
    assert (model.conditioning, model.network, model.normalize) == ("dense", "unet", False)
    assert run_folder.can_resume(tmp_path, papers, config.differences)
    with pytest.raises(InputError, match=r"another experiment: model\.conditioning \('dense' there, 'low_rank' here\)"):
        run_folder.can_resume(tmp_path, config.complete({"model": {"norm": "batch"}}).to_dict(), config.differences)


SEGMENTATION = {
    "task__name": "segmentation",
    "loss__terms": ("soft_dice",),
    "loss__scales": (1.0,),
    "lam__sampling": "constant",
    "model__hyper_width": 0,
    "model__residual": False,
    "model__normalize": False,
}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("loss.terms", ("mae",), r'\("soft_dice",\)'),
        ("task.sigma", 0.1, "0"),
        ("model.hyper_width", 4, "0"),
        ("model.residual", True, "False"),
        ("lam.sampling", "ensemble", '"constant"'),
        ("data.source", "arrays", '"mni" or "abide", which have labels,'),
        ("data.source", "broad", '"mni" or "abide", which have labels,'),
    ],
)
def test_segmentation_is_of_clean_images_with_labels_by_a_plain_network(key, value, expected):
    assert set_to("train.steps", 3, **SEGMENTATION).task.name == "segmentation"
    settings = {**SEGMENTATION, key.replace(".", "__"): value}
    with pytest.raises(InputError, match=rf"config\.{key} must be {expected} where config\.task\.name is \"segmentation\""):
        set_to("train.steps", 3, **settings)


def test_soft_dice_needs_segmentation():
    for terms in (("soft_dice",), ("mae", "soft_dice")):
        with pytest.raises(InputError, match=r"config\.loss\.terms must be free of soft_dice unless config\.task\.name is"):
            set_to("loss.terms", terms, loss__scales=(1.0,) * len(terms))


def test_arrays_need_their_files():
    with pytest.raises(InputError, match=r"config\.data\.val must be the path of a \.npy file"):
        set_to("data.source", "arrays", data__train="a.npy", data__test="a.npy")


def test_differences_name_what_is_computed_otherwise():
    a = config.default_config().to_dict()
    assert config.differences(a, a) == []
    b = set_to("train.batch", 16, train__keep=5, train__log_every=1, data__cache="elsewhere", data__placement="host")
    assert config.differences(a, b.to_dict()) == ["train.batch (32 there, 16 here)"]
    c = set_to("task.acceleration", 8.0, model__norm="none")
    assert sorted(config.differences(a, c.to_dict())) == [
        "model.norm ('instance' there, 'none' here)",
        "task.acceleration (4.0 there, 8.0 here)",
    ]


def test_how_lambda_acts_is_nothing_to_a_network_without_it():
    alone = {"lam__sampling": "constant", "lam__value": (0.5,), "model__hyper_width": 0}
    a, b = (set_to("model.conditioning", kind, **alone).to_dict() for kind in ("dense", "low_rank"))
    assert config.differences(a, b) == []


def test_differences_survive_json():
    a = config.default_config().to_dict()
    assert config.differences(json.loads(json.dumps(a)), a) == []


PRIORS = {"loss__terms": ("data_consistency", "weight_l1", "total_variation"), "loss__scales": (1.0, 1.0, 1.0)}


def test_amortized_optimization_takes_no_supervised_term():
    assert set_to("loss.ground_truth", False, **PRIORS).loss.ground_truth is False
    with pytest.raises(InputError, match=r"config\.loss\.terms must be free of mae, ssim, which compare with the truth"):
        set_to("loss.ground_truth", False)
    mixed = ("data_consistency", "mae", "total_variation")
    with pytest.raises(InputError, match=r"free of mae, .*got \('data_consistency', 'mae', 'total_variation'\)"):
        set_to("loss.ground_truth", False, **{**PRIORS, "loss__terms": mixed})
    assert set_to("dhs.keep", 8, **{**PRIORS, "loss__terms": mixed}).dhs.keep == 8  # who has the truth may use both


def test_uniform_variants_follow_the_batch():
    """Whether the whole batch is stated or not, the experiment is the same."""
    for name, variant in (("ao_quickstart", "uhs"), ("paper_csmri_ao_8x", "S-uhs")):
        path = next(path for path in FILES if path.stem == name)
        variant_config = load(path).get_config(variant)
        variant_config.train.batch = 4
        complete = config.complete(variant_config)
        assert complete.dhs.keep is None
        with variant_config.unlocked():
            variant_config.dhs.keep = 4
        assert config.differences(complete.to_dict(), config.complete(variant_config).to_dict()) == []


@pytest.mark.parametrize("name", ["csmri_supervised_4x", "csmri_supervised_8x", "denoise", "superres"])
def test_baselines_differ_from_what_they_are_compared_with_in_their_networks_alone(name):
    a, b = (
        load(next(path for path in FILES if path.stem == file)).get_config(variant)
        for file, variant in (("paper_baselines_sl", name), (f"paper_{name}", "L"))
    )
    keys = {part.partition(" (")[0] for part in config.differences(a.to_dict(), b.to_dict())}
    assert keys == {"lam.sampling", "lam.axes", "model.hyper_width"}


def test_keep_is_optional():
    assert config.complete({}).dhs.keep is None
    assert config.complete(json.loads(json.dumps(config.default_config().to_dict()))).dhs.keep is None
    assert set_to("dhs.keep", 32).dhs.keep == 32  # uniform sampling, whatever the terms
    assert set_to("dhs.keep", 1, **PRIORS).dhs.keep == 1


@pytest.mark.parametrize("terms", [("mae",), ("mae", "total_variation"), ("data_consistency", "total_variation")])
def test_automatic_scales_need_losses_that_have_a_value_alone(terms):
    """One loss needs no scale, a prior alone goes to 0, and without ground truth the settings must say so."""
    with pytest.raises(InputError, match=r"config\.loss\.scales must be numbers, unless two terms or more all compare"):
        set_to("loss.scales", ("auto",), loss__terms=terms)


AXES = {"lam__sampling": "ensemble", "model__hyper_width": 0}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("lam.axes", (), "1 tuples of rising numbers"),
        ("lam.axes", ((0.0, 0.5), (1.0,)), "1 tuples of rising numbers"),
        ("lam.axes", ((0.5, 0.5),), "1 tuples of rising numbers"),
        ("lam.axes", ((0.0, 1.5),), "1 tuples of rising numbers"),
        ("lam.axes", ((),), "1 tuples of rising numbers"),
        ("lam.axes", (0.5,), "1 tuples of rising numbers"),
        ("model.hyper_width", 4, "0 where"),
    ],
)
def test_an_ensemble_is_of_plain_networks_on_a_grid(key, value, expected):
    settings = {"lam__axes": ((0.0, 1.0),), **AXES}
    settings.pop(key.replace(".", "__"), None)
    with pytest.raises(InputError, match=rf"^config\.{key} must be {expected}"):
        set_to(key, value, **settings)


def test_axes_are_the_same_from_a_file_and_from_a_command_line():
    settings = set_to("lam.axes", ((0.0, 0.5, 1.0),), **AXES)
    loaded = config.complete(json.loads(json.dumps(settings.to_dict())))
    assert loaded.lam.axes == ((0.0, 0.5, 1.0),)
    assert config.differences(settings.to_dict(), loaded.to_dict()) == []


@pytest.mark.parametrize("scales", ["auto", ("auto",), ["auto"]])
def test_automatic_scales(scales):
    priors = {**PRIORS, "loss__scales": scales, "loss__ground_truth": False}
    assert set_to("train.steps", 3, **priors).loss.scales == config.AUTO


def load(path):
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_hold_experiments(path):
    """Each file and each of its variants: those that its error message lists, and those that its docstring names."""
    module = load(path)
    default = config.complete(module.get_config()).to_dict()
    if inspect.signature(module.get_config).parameters:
        with pytest.raises(InputError, match="variant must be one of .*; got 'XL'") as refusal:
            module.get_config("XL")
        variants = re.search("one of (.*);", str(refusal.value))[1].split(", ")
        names = {*variants, *re.findall(rf"configs/{path.name}:(\S+)", module.__doc__)}
        configs = [config.complete(module.get_config(name)).to_dict() for name in sorted(names)]
        assert default in configs
        assert all(a != b for i, a in enumerate(configs) for b in configs[:i])


def test_there_are_files():
    assert "quickstart" in [path.stem for path in FILES]


def test_terms_joined_by_a_comma_are_several():
    assert config.complete({"loss": {"terms": ("mae,ssim",)}}).loss.terms == ("mae", "ssim")
