"""Dataset strings: the whole grammar, and an error for everything else that lists what is valid."""

import hashlib
from pathlib import Path

import pytest

from dinov2_noise.data import DATASETS, DatasetSpec, Subset, make, parse_dataset_string, register_dataset
from dinov2_noise.decoding import parse_range
from dinov2_noise.errors import DatasetStringError, MissingFolderError, NoiseNameError
from dinov2_noise.noise import Gaussian, Shot, Speckle
from dinov2_noise.noise.corruptions import Corruption


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("ImageNet:split=TRAIN:root=/r", DatasetSpec("ImageNet", Path("/r"), "TRAIN")),
        ("ImageNet:split=VAL:root=r:extra=e", DatasetSpec("ImageNet", Path("r"), "VAL", Path("e"))),
        (
            "ImageNet:denoised=/d:noise=gauss255,seed=7:extra=/e:root=/r:split=TEST",
            DatasetSpec("ImageNet", Path("/r"), "TEST", Path("/e"), Path("/d"), Gaussian(255), 7),
        ),
        ("ImageFolder:root=/a=b/c", DatasetSpec("ImageFolder", Path("/a=b/c"))),
        (
            "ImageFolder:root=/r:denoised=/d:noise=shot3",
            DatasetSpec("ImageFolder", Path("/r"), denoised=Path("/d"), noise=Shot(3)),
        ),
        (
            "ImageFolder:root=/r:noise=speckle0.4,seed=-1",
            DatasetSpec("ImageFolder", Path("/r"), noise=Speckle(0.4), noise_seed=-1),
        ),
        ("ImageFolder:root=~/r", DatasetSpec("ImageFolder", Path("~/r").expanduser())),
        (
            "ImageNet:split=VAL:root=/r:corruption=fog/3",
            DatasetSpec("ImageNet", Path("/r"), "VAL", corruption=Corruption("fog", 3)),
        ),
        (
            "ImageFolder:corruption=glass_blur/5,seed=-7,size=full:root=/r:noise=shot3,seed=1",
            DatasetSpec(
                "ImageFolder",
                Path("/r"),
                noise=Shot(3),
                noise_seed=1,
                corruption=Corruption("glass_blur", 5),
                corruption_seed=-7,
                corruption_size=None,
            ),
        ),
        (
            "ImageFolder:root=/r:corruption=snow/1,size=112",
            DatasetSpec("ImageFolder", Path("/r"), corruption=Corruption("snow", 1), corruption_size=112),
        ),
        ("ImageFolder:root=/r:noise=none", DatasetSpec("ImageFolder", Path("/r"))),
        (
            "ImageFolder:root=/r:noise=shot3,mode=fresh,seed=7",
            DatasetSpec("ImageFolder", Path("/r"), noise=Shot(3), noise_seed=7, noise_mode="fresh"),
        ),
        ("ImageFolder:root=/r:noise=shot3,mode=fixed", DatasetSpec("ImageFolder", Path("/r"), noise=Shot(3))),
        (
            "ImageFolder:root=/r:range=fixed,0,4095",
            DatasetSpec("ImageFolder", Path("/r"), values=parse_range("fixed:0,4095")),
        ),
        ("ImageFolder:root=/r:range=dtype", DatasetSpec("ImageFolder", Path("/r"))),
        (
            "ImageNet:split=VAL:root=/r:subset=0.1,seed=7",
            DatasetSpec("ImageNet", Path("/r"), "VAL", subset=Subset(fraction=0.1, seed=7)),
        ),
        (
            "ImageFolder:root=/r:subset=./0.1:labels=folders:list=~/a, b.txt",
            DatasetSpec(
                "ImageFolder",
                Path("/r"),
                subset=Subset(file=Path("0.1")),
                class_folders=True,
                list_file=Path("~/a, b.txt").expanduser(),
            ),
        ),
        ("ImageNetC:root=/c/fog/3:extra=/e", DatasetSpec("ImageNetC", Path("/c/fog/3"), extra=Path("/e"))),
    ],
)
def test_grammar(text, spec):
    assert parse_dataset_string(text) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown dataset ''.*ImageFolder, ImageNet"),
        ("imagenet:root=/r", "unknown dataset 'imagenet'.*ImageFolder, ImageNet"),
        ("ImageNet:split=TRAIN", "root missing"),
        ("ImageNet:root=/r", r"split missing.*ImageNet:split=…:root=…|split missing.*ImageNet:root=…:split=…"),
        ("ImageNet", "root and split missing|split and root missing"),
        ("ImageNet:split=train:root=/r", "unknown split 'train'.*TRAIN, VAL, TEST"),
        ("ImageNet:split=TRAIN:root=/r:rot=1", "unknown key 'rot'.*split, root, extra, denoised, noise"),
        ("ImageNet:split=TRAIN:root", "'root' .*is not key=value.*split, root, extra"),
        ("ImageNet:split=TRAIN:root=", "'root=' .*is not key=value"),
        ("ImageNet:split=TRAIN:root=/r:", "'' .*is not key=value"),
        ("ImageNet:split=TRAIN:root=/r:root=/s", "'root' stands twice"),
        ("ImageFolder:root=/r:split=TRAIN", "unknown key 'split'.*root, denoised, noise"),
        ("ImageFolder:root=/r:extra=/e", "unknown key 'extra'"),
        ("ImageFolder:root=/r:noise=gauss255,sed=1", "noise=NAME,seed=INTEGER"),
        ("ImageFolder:root=/r:noise=gauss255,seed=", "noise=NAME,seed=INTEGER"),
        ("ImageFolder:root=/r:noise=gauss255,seed=1.5", "noise=NAME,seed=INTEGER"),
        ("ImageFolder:root=/r:noise=gauss255,mode=frsh", "mode=fixed .or mode=fresh.*noise=none"),
        ("ImageFolder:root=/r:labels=files", "labels=files.*only value is folders"),
        ("ImageNetC:root=/r:classes=all", "classes=all.*only value is known"),
        ("ImageNet:split=VAL:root=/r:list=/l.txt", "unknown key 'list'"),
        ("ImageFolder:root=/r:noise=gauss255,", "noise=NAME,seed=INTEGER"),
        ("ImageFolder:root=/r:corruption=fog/3,", "corruption=NAME/SEVERITY.*seed=INTEGER.*size=PIXELS"),
        ("ImageFolder:root=/r:corruption=fog/3,sed=1", "corruption=NAME/SEVERITY"),
        ("ImageFolder:root=/r:corruption=fog/3,seed=", "corruption=NAME/SEVERITY"),
        ("ImageFolder:root=/r:corruption=fog/3,seed=1,seed=1", "corruption=NAME/SEVERITY"),
        ("ImageFolder:root=/r:corruption=fog/3,size=0", "corruption=NAME/SEVERITY"),
        ("ImageFolder:root=/r:corruption=fog/3,size=half", "corruption=NAME/SEVERITY"),
        ("ImageFolder:root=/r:denoised=/d:corruption=fog/3", "denoised= and corruption=.*take one out"),
        ("ImageNetC:root=/r:split=VAL", "unknown key 'split'.*root, extra"),
    ],
)
def test_what_is_wrong_is_said_and_what_is_valid(text, message):
    with pytest.raises(DatasetStringError, match=message):
        parse_dataset_string(text)


def test_bad_corruption_name():
    with pytest.raises(NoiseNameError, match=r"'smoke'.*gaussian_noise"):
        parse_dataset_string("ImageFolder:root=/r:corruption=smoke/3")
    with pytest.raises(NoiseNameError, match="fog/1 to fog/5"):
        parse_dataset_string("ImageFolder:root=/r:corruption=fog,seed=3")


def test_bad_noise_name():
    with pytest.raises(NoiseNameError, match="gauss255"):
        parse_dataset_string("ImageFolder:root=/r:noise=fog")


@pytest.fixture
def registry(monkeypatch):
    for name, kind in list(DATASETS.items()):
        monkeypatch.setitem(DATASETS, name, kind)
    yield
    DATASETS.pop("Mine", None)


def test_a_dataset_of_the_user_is_made_by_its_factory(registry):
    made = []
    register_dataset("Mine", lambda *arguments: made.append(arguments), keys=("root", "denoised"))
    make("Mine:root=/r:denoised=/d", "transform", "target transform")
    assert made == [(DatasetSpec("Mine", Path("/r"), denoised=Path("/d")), "transform", "target transform")]
    with pytest.raises(DatasetStringError, match="unknown key 'split'"):
        make("Mine:root=/r:split=TRAIN")
    with pytest.raises(DatasetStringError, match="ImageFolder, ImageNet, ImageNetC, LabelledImages, Mine"):
        make("Other:root=/r")


@pytest.mark.parametrize(("name", "keys"), [("a:b", ("root",)), ("", ("root",)), ("Mine", ("root", "colour"))])
def test_registration_that_no_string_could_name(registry, name, keys):
    with pytest.raises(DatasetStringError, match="cannot register"):
        register_dataset(name, lambda *arguments: None, keys=keys)


def test_files_that_choose_images_are_known_by_their_content(tmp_path):
    subset, names = tmp_path / "a b.txt", tmp_path / "list.txt"
    subset.write_text("n01\n")
    names.write_text("n01/1.png\n")
    text = f"ImageFolder:root=r:subset={subset}:list={names}"
    before = parse_dataset_string(text).chosen_by()
    assert before == {
        "subset_sha256": hashlib.sha256(b"n01\n").hexdigest(),
        "list_sha256": hashlib.sha256(b"n01/1.png\n").hexdigest(),
    }
    subset.write_text("n02\n")
    assert parse_dataset_string(text).chosen_by() != before
    assert parse_dataset_string("ImageFolder:root=r:subset=0.1").chosen_by() == {}
    with pytest.raises(MissingFolderError, match=r"gone\.txt does not exist"):
        parse_dataset_string("ImageFolder:root=r:subset=gone.txt").chosen_by()
