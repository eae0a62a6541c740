"""Fixed and fresh noise: from draws, in workers, after a resume; and where fresh noise is refused."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from dinov2_noise.augment.views import StagedViews
from dinov2_noise.curriculum.config import AnchorConfig, CurriculumConfig, StageConfig
from dinov2_noise.curriculum.sampler import CurriculumSampler
from dinov2_noise.curriculum.stages import Curriculum, build
from dinov2_noise.data import make, parse_dataset_string
from dinov2_noise.denoise.images import open_source
from dinov2_noise.errors import DatasetStringError
from dinov2_noise.evaluation.counting import LoaderSettings, batches
from dinov2_noise.noise import add_noise, noisy_uint8, parse

IMAGES, BATCH, SEED = 5, 4, 3


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("modes") / "clean"
    folder.mkdir()
    for number in range(IMAGES):
        Image.new("RGB", (16, 16), (100 + number, 128, 150)).save(folder / f"{number}.png")
    return folder


class Sample:
    """A picklable transform: the student's image, and its twin or zeros."""

    def __call__(self, views):
        main = torch.from_numpy(np.array(views.main))
        twin = torch.zeros_like(main) if views.twin is None else torch.from_numpy(np.array(views.twin))
        return {"main": main, "twin": twin}


def _curriculum(*stages: StageConfig) -> Curriculum:
    return build(CurriculumConfig(stages or (StageConfig("noisy", 6, "noisy"),)), epoch_length_iterations=2)


def _batches(text: str, *, workers: int = 0, start: int = 0, method: str | None = None, curriculum=None) -> list[dict]:
    dataset = make(text, Sample(), knows_epoch=True)
    curriculum = curriculum or _curriculum()
    dataset.view_loader = StagedViews(curriculum, SEED)
    # As many draws as are wanted: a spawned worker that is stopped while it works may end by abort (PyTorch's loader).
    draws = list(islice(CurriculumSampler(IMAGES, BATCH, curriculum, SEED, start), (8 - start) * BATCH))
    loader = DataLoader(dataset, BATCH, sampler=draws, num_workers=workers, multiprocessing_context=method)
    return [sample for sample, _ in loader]


def _draws(curriculum=None):
    return list(islice(CurriculumSampler(IMAGES, BATCH, curriculum or _curriculum(), SEED), 8 * BATCH))


def _mains(found: list[dict]) -> np.ndarray:
    return torch.cat([batch["main"] for batch in found]).numpy()


def test_fresh_noise_is_that_of_path_seed_and_pass_over_the_data(root):
    images = _mains(_batches(f"ImageFolder:root={root}:noise=gauss50,seed=7,mode=fresh"))
    draws = _draws()
    assert [draw.epoch for draw in draws] == [number // IMAGES for number in range(len(draws))]
    for draw, image in zip(draws, images, strict=True):
        clean, name = np.array(Image.open(root / f"{draw.index}.png")), f"{draw.index}.png"
        expected = noisy_uint8(clean, parse("gauss50"), relative_path=name, base_seed=7, epoch=draw.epoch)
        np.testing.assert_array_equal(image, expected)
    of_one = [image for draw, image in zip(draws, images, strict=True) if draw.index == 2]
    assert len({image.tobytes() for image in of_one}) == len(of_one) >= 6


@pytest.mark.parametrize("mode", ["", ",mode=fixed"])
def test_fixed_noise_is_the_folders_in_every_epoch(root, tmp_path, mode):
    add_noise(root, tmp_path / "noisy", noise="gauss50", base_seed=7, workers=1, progress=False)
    stored = _mains(_batches(f"ImageFolder:root={tmp_path}/noisy:noise=none"))
    np.testing.assert_array_equal(_mains(_batches(f"ImageFolder:root={root}:noise=gauss50,seed=7{mode}")), stored)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_make_what_one_process_makes(root, method):
    text = f"ImageFolder:root={root}:noise=shot3,mode=fresh"
    np.testing.assert_array_equal(_mains(_batches(text, workers=2, method=method)), _mains(_batches(text)))


@pytest.mark.parametrize("start", [1, 3, 7])
def test_a_resumed_run_sees_the_noise_of_one_that_went_on(root, start):
    text = f"ImageFolder:root={root}:noise=gauss50,mode=fresh"
    resumed = _mains(_batches(text, start=start, workers=2))
    np.testing.assert_array_equal(resumed, _mains(_batches(text))[BATCH * start :])


def test_twins_stay_those_of_the_fixed_noise(root, tmp_path):
    for number in range(IMAGES):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / f"{number}.png")
    stages = (StageConfig("first", 3, "denoised"), StageConfig("anchored", 3, "noisy", anchor=AnchorConfig(1.0)))
    curriculum = _curriculum(*stages)
    text = f"ImageFolder:root={root}:noise=gauss50,mode=fresh:denoised={tmp_path}"
    found = _batches(text, curriculum=curriculum)
    twins, mains, draws = torch.cat([batch["twin"] for batch in found]), _mains(found), _draws(curriculum)
    for draw, main, twin in zip(draws, mains, twins, strict=True):
        red = (main if draw.view == "denoised" else twin.numpy())[..., 0]
        assert np.unique(red) == [draw.index]
        assert (draw.view == "noisy") == (np.unique(main).size > 20)


def test_no_noise_is_no_noise(root):
    spec = parse_dataset_string(f"ImageFolder:root={root}:noise=none")
    assert spec == parse_dataset_string(f"ImageFolder:root={root}")
    assert np.unique(make(f"ImageFolder:root={root}:noise=none")[1][0]).tolist() == [101, 128, 150]


def test_where_no_epoch_is_known_fresh_noise_is_refused_with_the_reason(root):
    text = f"ImageFolder:root={root}:noise=gauss50,mode=fresh"
    refusal = "mode=fresh.*needs the epoch.*mode=fixed"
    with pytest.raises(DatasetStringError, match=refusal):
        make(text)
    with pytest.raises(DatasetStringError, match=refusal):
        open_source(text)
    with pytest.raises(DatasetStringError, match=refusal):
        list(batches([text], LoaderSettings(np.asarray, 2, 0, False), description=""))
    dataset = make(text, knows_epoch=True)
    with pytest.raises(DatasetStringError, match=refusal):
        dataset[0]
    assert dataset.wants_epoch
    assert not make(f"ImageFolder:root={root}:noise=gauss50").wants_epoch
    assert dataset.noisy(0, 3) == dataset.noisy(0, epoch=3) != dataset.noisy(0, 4)


@pytest.mark.parametrize("value", ["gauss50,mode=new", "gauss50,mode", "gauss50,mode=fresh,mode=fresh", "none,seed=1"])
def test_modes_that_are_none(value):
    with pytest.raises((DatasetStringError, ValueError), match=r"mode=fixed|unknown noise 'none'"):
        parse_dataset_string(f"ImageFolder:root=/r:noise={value}")
