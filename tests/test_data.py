"""Image sets: the digits' split, standardization, and IDX files that are not as they should be."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from course_utils import data
from course_utils.data import digits, idx_images, read_idx

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
FLOAT32_ERROR = 2.0**-23  # relative, of a number rounded to float32 a few times
SMALL = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)


def idx_bytes(array, sizes=None):
    """Return `array` in IDX format, with a header that announces `sizes` if they are given."""
    sizes = array.shape if sizes is None else sizes
    return bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + array.tobytes()


def write(path, content, gzipped=False):
    path.write_bytes(gzip.compress(content, mtime=0) if gzipped else content)
    return path


def image_set(rng):
    """Return arrays for the four files: 40 training and 10 test images of 3 x 5 pixels, four classes."""
    return [
        rng.integers(0, 200, (40, 3, 5)).astype(np.uint8),
        np.arange(40, dtype=np.uint8) % 4,
        rng.integers(100, 256, (10, 3, 5)).astype(np.uint8),
        np.arange(10, dtype=np.uint8) % 3,
    ]


@pytest.fixture
def arrays():
    return image_set(np.random.default_rng(0))


@pytest.fixture
def folder(tmp_path, arrays):
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name, array in zip(FILES, arrays, strict=True):
        write(folder / name, idx_bytes(array))
    return folder


def complaint(error, function, *args):
    """Return the message of the `error` with which `function` refuses `args`; it tells what was expected."""
    with pytest.raises(error) as caught:
        function(*args)
    assert type(caught.value) is error
    message = str(caught.value)
    assert "; expected" in message
    return message


def assert_refused(path, *parts):
    message = complaint(ValueError, read_idx, path)
    for part in (str(path), *parts):
        assert part in message


# Digits


def test_digits_have_the_promised_sizes_and_types():
    images = digits()
    assert images.train_inputs.shape == (1437, 64)
    assert images.test_inputs.shape == (360, 64)
    assert images.train_labels.shape == (1437,)
    assert images.test_labels.shape == (360,)
    assert (images.name, images.shape, images.classes) == ("digits", (8, 8), 10)
    assert images.train_inputs.dtype == images.test_inputs.dtype == torch.float32
    assert images.train_labels.dtype == images.test_labels.dtype == torch.int64


def test_digits_are_scikit_learns_each_once_with_its_label():
    images = digits()
    raw = load_digits()
    expected = sorted(map(tuple, np.column_stack([raw.data, raw.target])))
    inputs = torch.cat([images.train_inputs, images.test_inputs]).double()
    step = (inputs.max() - inputs.min()) / 16  # a standardized pixel has 17 values, as a raw one
    pixels = ((inputs - inputs.min()) / step).round().numpy()
    labels = torch.cat([images.train_labels, images.test_labels]).numpy()
    assert sorted(map(tuple, np.column_stack([pixels, labels]))) == expected


def test_digits_are_split_by_stratified_sampling():
    images = digits()
    train, test = (torch.bincount(labels).double() for labels in (images.train_labels, images.test_labels))
    share = (train + test) * 360 / 1797
    assert (test - share).abs().max() < 1  # rounding to whole images; chance alone is off by about 5


def test_digits_are_the_same_each_time():
    first, second = digits(), digits()
    for field in ("train_inputs", "train_labels", "test_inputs", "test_labels"):
        assert torch.equal(getattr(first, field), getattr(second, field))
    # the split of random_state=0, which stored outputs of notebooks rely on
    assert first.train_labels[:12].tolist() == [3, 9, 1, 3, 1, 9, 4, 4, 2, 8, 3, 5]


# Standardization


def assert_standardized(inputs):
    """Hold mean and mean square to rounding: every pixel carries a relative error of float32's order."""
    x = inputs.double()
    size = x.abs().max().item()
    assert abs(x.mean().item()) < FLOAT32_ERROR * size
    assert abs(x.square().mean().item() - 1) < 2 * FLOAT32_ERROR * size


def test_training_pixels_have_mean_0_and_mean_square_1(folder):
    assert_standardized(digits().train_inputs)
    assert_standardized(idx_images(folder).train_inputs)


def test_standardization_is_exact_for_many_dark_pixels(tmp_path, arrays):
    """One bright pixel among a million: mean 2.6e-4, which float32 sums and one-pass formulas would blur."""
    arrays[0] = np.zeros((1000, 32, 32), np.uint8)
    arrays[0][123, 4, 5] = 255
    arrays[1] = np.zeros(1000, np.uint8)
    arrays[2] = arrays[0][120:130]
    for name, array in zip(FILES, arrays, strict=True):
        write(tmp_path / name, idx_bytes(array))
    n = arrays[0].size
    x = idx_images(tmp_path).train_inputs.double()
    bright, dark = (n - 1) / np.sqrt(n - 1), -1 / np.sqrt(n - 1)  # standardized, by hand
    assert x[123, 4 * 32 + 5].item() == pytest.approx(bright, rel=2 * FLOAT32_ERROR)
    assert x[0, 0].item() == pytest.approx(dark, rel=2 * FLOAT32_ERROR)


def test_test_images_are_standardized_with_the_training_numbers(folder, arrays):
    train, _, test, _ = (array.astype(np.float64) for array in arrays)
    images = idx_images(folder)
    expected = ((test - train.mean()) / train.std()).reshape(10, 15)
    np.testing.assert_allclose(images.test_inputs, expected, rtol=0, atol=4 * FLOAT32_ERROR)
    own = ((test - test.mean()) / test.std()).reshape(10, 15)
    assert np.abs(images.test_inputs.numpy() - own).mean() > 1  # the difference would show


def test_pixels_are_in_row_order(folder, arrays):
    images = idx_images(folder)
    train = arrays[0].astype(np.float64)
    expected = (train - train.mean()) / train.std()
    np.testing.assert_allclose(
        images.train_inputs.reshape(40, *images.shape), expected, rtol=0, atol=4 * FLOAT32_ERROR
    )


# Folders of IDX files


def test_idx_images_have_the_promised_fields(folder, arrays):
    images = idx_images(str(folder))
    assert (images.name, images.shape, images.classes) == ("tiny", (3, 5), 4)
    assert images.train_labels.tolist() == arrays[1].tolist()
    assert images.test_labels.tolist() == arrays[3].tolist()
    assert images.train_labels.dtype == images.test_labels.dtype == torch.int64
    assert images.train_inputs.shape == (40, 15)
    assert images.test_inputs.shape == (10, 15)


@pytest.mark.parametrize(("largest_train", "largest_test"), [(6, 3), (2, 6)])
def test_classes_are_counted_over_both_parts(folder, arrays, largest_train, largest_test):
    arrays[1][5], arrays[3][5] = largest_train, largest_test
    arrays[1] = np.minimum(arrays[1], largest_train)
    for name, array in zip(FILES, arrays, strict=True):
        write(folder / name, idx_bytes(array))
    assert idx_images(folder).classes == 7


@pytest.mark.parametrize("spelling", ["-idx", ".idx"])
@pytest.mark.parametrize("gzipped", [False, True])
def test_every_spelling_is_found(folder, spelling, gzipped):
    expected = idx_images(folder).train_inputs
    for name in FILES:
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        write(folder / (name.replace("-idx", spelling) + ".gz" * gzipped), content, gzipped)
    assert torch.equal(idx_images(folder).train_inputs, expected)


@pytest.mark.parametrize("spelling", ["-idx", ".idx"])
def test_plain_files_are_preferred(folder, spelling):
    for name in FILES:
        (folder / name).rename(folder / name.replace("-idx", spelling))
        (folder / f"{name}.gz").write_bytes(b"never read")
    assert idx_images(folder).classes == 4


def test_a_home_directory_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert idx_images("~/tiny").classes == 4
    assert read_idx(f"~/tiny/{TEST_LABELS}").shape == (10,)


def test_a_missing_folder_is_refused(tmp_path):
    message = complaint(FileNotFoundError, idx_images, tmp_path / "nowhere")
    assert message.startswith(f"{tmp_path / 'nowhere'}: found no file {TRAIN_IMAGES}; expected it, or")


def test_a_missing_file_is_named_with_its_other_spellings(folder):
    (folder / TEST_IMAGES).unlink()
    (folder / TEST_IMAGES).mkdir()  # some archive may unpack a file into a folder of its own name
    message = complaint(FileNotFoundError, idx_images, folder)
    wanted = "it, or t10k-images.idx3-ubyte, or one of them with .gz at the end"
    assert message == f"{folder}: found no file {TEST_IMAGES}; expected {wanted}"


def test_a_folder_with_a_files_name_does_not_hide_the_file(folder):
    (folder / TRAIN_IMAGES).rename(folder / "train-images.idx3-ubyte")
    (folder / TRAIN_IMAGES).mkdir()
    assert idx_images(folder).classes == 4


def swap(folder, first, second):
    content = (folder / first).read_bytes(), (folder / second).read_bytes()
    write(folder / first, content[1])
    write(folder / second, content[0])


PARTS = [("train", TRAIN_IMAGES, TRAIN_LABELS), ("t10k", TEST_IMAGES, TEST_LABELS)]


def assert_shapes_refused(folder, part, images, labels):
    message = complaint(ValueError, idx_images, folder)
    got = f"images and labels of {part} have shapes {images} and {labels}"
    assert message == f"{folder}: {got}; expected (images, rows, columns) and (images,)"


@pytest.mark.parametrize(("part", "images", "labels"), PARTS)
def test_swapped_images_and_labels_are_refused(folder, part, images, labels):
    swap(folder, images, labels)
    count = 40 if part == "train" else 10
    assert_shapes_refused(folder, part, (count,), (count, 3, 5))


@pytest.mark.parametrize(("part", "images", "labels"), PARTS)
def test_images_in_place_of_labels_are_refused(folder, part, images, labels):
    write(folder / labels, (folder / images).read_bytes())
    count = 40 if part == "train" else 10
    assert_shapes_refused(folder, part, (count, 3, 5), (count, 3, 5))


@pytest.mark.parametrize(("part", "images", "labels"), PARTS)
@pytest.mark.parametrize("change", [-1, 1])
def test_a_label_too_few_or_too_many_is_refused(folder, part, images, labels, change):
    count = 40 if part == "train" else 10
    write(folder / labels, idx_bytes(np.zeros(count + change, np.uint8)))
    assert_shapes_refused(folder, part, (count, 3, 5), (count + change,))


@pytest.mark.parametrize("name", FILES)
def test_damage_in_any_file_is_found(folder, name):
    write(folder / name, (folder / name).read_bytes()[:-1])
    assert str(folder / name) in complaint(ValueError, idx_images, folder)


# Single IDX files


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("shape", [(1,), (7,), (256, 300), (1, 1, 1), (5, 3, 2), (100, 28, 28)])
def test_round_trip(tmp_path, shape, gzipped):
    array = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    result = read_idx(write(tmp_path / "file", idx_bytes(array), gzipped))
    assert result.dtype == np.uint8
    assert np.array_equal(result, array)


def test_the_content_tells_what_is_gzipped(tmp_path):
    assert np.array_equal(read_idx(write(tmp_path / "plain.gz", idx_bytes(SMALL))), SMALL)
    assert np.array_equal(read_idx(str(write(tmp_path / "zipped", idx_bytes(SMALL), gzipped=True))), SMALL)


def test_a_path_without_a_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        read_idx(tmp_path / "none")


HEADER = idx_bytes(SMALL)[:16]


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with the bytes ; expected 00 00 08, then 01, 02 or 03"),
        (HEADER[:3], "starts with the bytes 00 00 08; expected"),
        (HEADER[:4], "starts with the bytes 00 00 08 03; expected"),
        (HEADER[:15], "starts with the bytes 00 00 08 03 00 00 00 03 00 00 00 02 00 00 00; expected"),
        (b"\x89PNG\r\n", "starts with the bytes 89 50 4e 47 0d 0a; expected 00 00 08"),
        (b"\0\0\x0d" + HEADER[3:], "starts with the bytes 00 00 0d 03 "),  # floats
        (b"\0\0\x08\0" + bytes(1), "starts with the bytes 00 00 08 00 00; expected"),
        (b"\0\0\x08\4" + bytes(4 * 5), "starts with the bytes 00 00 08 04 "),
        (HEADER + bytes(11), "has 27 bytes; expected a header of 16 and 3 x 2 x 2 of data"),
        (HEADER + bytes(13), "has 29 bytes; expected a header of 16 and 3 x 2 x 2 of data"),
        (idx_bytes(SMALL, (2**31, 2**31, 4)), "has 28 bytes; expected"),  # 2**64: for 64 bits that is 0
        (gzip.compress(idx_bytes(SMALL)), None),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_wrong_file_is_refused(tmp_path, content, message, gzipped):
    path = write(tmp_path / "file", content, gzipped)
    if message:
        assert_refused(path, message)
    elif gzipped:  # twice
        assert_refused(path, "starts with the bytes 1f 8b 08 00 ")


def test_every_truncation_is_refused(tmp_path):
    for content in (idx_bytes(SMALL), gzip.compress(idx_bytes(SMALL), mtime=0)):
        for length in range(len(content)):
            damaged = content[0] and length > 1
            message = complaint(ValueError, read_idx, write(tmp_path / "file", content[:length]))
            assert ("the gzip stream is damaged" in message) == bool(damaged)
        assert np.array_equal(read_idx(write(tmp_path / "file", content)), SMALL)


def test_damage_in_a_gzip_stream_is_refused(tmp_path):
    content = gzip.compress(idx_bytes(SMALL), mtime=0)
    for position in (2, 12, len(content) - 8, len(content) - 1):  # method, data, checksum, length
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        assert_refused(write(tmp_path / "file", bytes(damaged)), "the gzip stream is damaged (")
    assert_refused(write(tmp_path / "file", content + b"garbage"), "the gzip stream is damaged (")


def test_the_array_can_be_written_to(tmp_path):
    array = read_idx(write(tmp_path / "file", idx_bytes(SMALL)))
    array[0] = 9
    assert array[0, 0, 0] == 9


def test_the_module_needs_no_scikit_learn_to_be_imported():
    source = Path(data.__file__).read_text(encoding="utf-8")
    assert "    from sklearn" in source
    assert "\nfrom sklearn" not in source
