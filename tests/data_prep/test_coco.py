import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from data_prep.coco import annotate, digest_metadata, read_annotations
from data_prep.make_shards import MakeShardsOptions, make_shards
from data_prep.photos import Photo
from pix2pix.data.shards import open_split
from pix2pix.errors import UserError
from tests.photographs import write_folder

LICENSES = [
    {"id": 4, "name": "Attribution License", "url": "http://creativecommons.org/licenses/by/2.0/"},
    {"id": 1, "name": "Attribution-NonCommercial License"},
    {"id": 7, "name": "No known copyright restrictions"},
]
IMAGES = [
    {"id": 9, "file_name": "a.jpg", "width": 640, "height": 480, "license": 4},
    {"id": 36, "file_name": "b.jpg", "width": 640, "height": 480, "license": 1},
    {"id": 61, "file_name": "c.jpg", "width": 640, "height": 480},
    {"id": 64, "file_name": "d.jpg", "license": 99},
]
CONTENT = {"info": {"year": 2017}, "licenses": LICENSES, "images": IMAGES}
PHOTOS = [Photo(f"{name}.jpg", 1) for name in "abcde"]
BY = {"id": 4, "name": "Attribution License", "url": "http://creativecommons.org/licenses/by/2.0/"}


def write(folder: Path, content: object = CONTENT, **options) -> Path:
    path = folder / "annotations.json"
    text = content if isinstance(content, str) else json.dumps(content, **options)
    path.write_text(text, encoding="utf-8")
    return path


def test_ids_and_licenses_are_known_as_the_file_says(tmp_path: Path) -> None:
    marked = annotate(PHOTOS, read_annotations(write(tmp_path)))
    assert [photo.metadata for photo in marked] == [
        {"id": 9, "license": BY},
        {"id": 36, "license": LICENSES[1]},
        {"id": 61},
        {"id": 64, "license": {"id": 99}},
        {},
    ]
    assert {photo.reject for photo in marked} == {None}


@pytest.mark.parametrize("wanted", [("4", "7"), ("attribution license", "7"), ("4", "4", "7")])
def test_other_licenses_are_left_out(tmp_path: Path, wanted: tuple[str, ...]) -> None:
    annotations = read_annotations(write(tmp_path))
    chosen = annotations.choose(wanted)
    assert chosen == {"4", "7"}
    assert [photo.reject for photo in annotate(PHOTOS, annotations, chosen)] == [
        None,
        "license",
        "license_unknown",
        "license",
        "license_unknown",
    ]


def test_a_reason_that_a_photograph_has_stays(tmp_path: Path) -> None:
    annotations = read_annotations(write(tmp_path))
    photos = [Photo("a.jpg", 0, reject="not_a_file"), Photo("b.jpg", 0, reject="not_a_file")]
    marked = annotate(photos, annotations, frozenset("4"))
    assert [photo.reject for photo in marked] == ["not_a_file"] * 2


def test_an_unknown_license_is_told_with_the_known_ones(tmp_path: Path) -> None:
    annotations = read_annotations(write(tmp_path))
    with pytest.raises(UserError, match=r"'5': .* has no such license. It has: 4 Attribution Li"):
        annotations.choose(["4", "5"])


def test_photographs_are_known_by_the_end_of_their_path(tmp_path: Path) -> None:
    content = {"images": [*IMAGES, {"id": 70, "file_name": "y/a.jpg"}]}
    annotations = read_annotations(write(tmp_path, content))
    names = ["train2017/b.jpg", "x/y/a.jpg", "z/a.jpg", "z/aa.jpg"]
    marked = annotate([Photo(name, 1) for name in names], annotations)
    assert [photo.metadata.get("id") for photo in marked] == [36, 70, 9, None]


def test_two_photographs_that_one_entry_may_mean_are_refused(tmp_path: Path) -> None:
    annotations = read_annotations(write(tmp_path))
    with pytest.raises(UserError, match=r"'a.jpg' may be train/a.jpg or val/a.jpg"):
        annotate([Photo("train/a.jpg", 1), Photo("val/a.jpg", 1)], annotations)


def test_an_older_member_of_the_same_name_is_no_second_photograph(tmp_path: Path) -> None:
    photos = [Photo("a.jpg", 1, reject="replaced"), Photo("a.jpg", 2)]
    marked = annotate(photos, read_annotations(write(tmp_path)))
    assert [photo.metadata["id"] for photo in marked] == [9, 9]


def test_annotations_of_other_photographs_are_refused(tmp_path: Path) -> None:
    annotations = read_annotations(write(tmp_path))
    with pytest.raises(UserError, match=r"knows none of the photographs: .*'a.jpg', .*'x.jpg'"):
        annotate([Photo("x.jpg", 1)], annotations)


@pytest.mark.parametrize("options", [{}, {"indent": 1}, {"separators": (",", ":")}])
@pytest.mark.parametrize("last", ["images", "licenses", "annotations"])
def test_any_way_to_write_the_file_reads_the_same(tmp_path: Path, options: dict, last: str) -> None:
    content = {**CONTENT, "é": [1.5, -2e-30, 'a"]},ö', None, [], {}], "n": 12, "annotations": [{}]}
    content[last] = content.pop(last)
    read = read_annotations(write(tmp_path, content, ensure_ascii=False, **options))
    assert read.metadata["d.jpg"] == {"id": 64, "license": {"id": 99}}
    assert len(read.metadata) == 4
    assert list(read.licenses) == ["4", "1", "7"]


@pytest.mark.parametrize("first", ["images", "annotations"])
def test_what_is_not_needed_takes_no_memory(tmp_path: Path, first: str) -> None:
    boxes = [{"caption": "x" * 1000, "id": number} for number in range(4_000)]
    content = {"images": IMAGES, "licenses": LICENSES, "annotations": boxes}
    path = write(tmp_path, {first: content[first], **content})
    size = path.stat().st_size
    del boxes, content
    assert size > 1_500_000
    tracemalloc.start()
    try:
        read_annotations(path)
        assert tracemalloc.get_traced_memory()[1] < size / 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON, or is cut short"),
        ("[1, 2]", 'has no list "images"'),
        ('{"images": [{"id": 1, "file', "is not JSON, or is cut short"),
        ('{"images": [1 2]}', "is not JSON, or is cut short: .*"),
        ("[" * 100_000, "is not JSON"),
        ('{"a": ' + "[" * 100_000, "is not JSON"),
        ("\x1f\x8b", "is not JSON"),
        ({"annotations": []}, 'has no list "images"'),
        ({"images": {}}, 'has no list "images"'),
        ({"images": [{"id": 1}]}, 'an image needs "file_name" and "id"'),
        ({"images": [[1]]}, 'an image needs "file_name" and "id"'),
        ({"images": IMAGES, "licenses": [3]}, 'an image needs "file_name" and "id"'),
        ({"images": [*IMAGES, {"id": 1, "file_name": "a.jpg"}]}, "two images named a.jpg"),
    ],
)
def test_what_are_no_annotations_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_annotations(write(tmp_path, content))


def test_what_stands_behind_the_two_lists_is_not_read(tmp_path: Path) -> None:
    text = json.dumps(CONTENT)[:-1] + ', "annotations": [{"id": '
    assert len(read_annotations(write(tmp_path, text)).metadata) == 4


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent.json cannot be read: No such file"):
        read_annotations(tmp_path / "absent.json")


def options_for(folder: Path, **changes) -> MakeShardsOptions:
    defaults = {"split": "train", "short_side": 48, "num_workers": 1}
    defaults |= {"photos": folder / "photos", "out": folder / "out"}
    return MakeShardsOptions(**defaults | changes)


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    """Four photographs, three of them known to annotations.json."""
    names = sorted(path.name for path in write_folder(tmp_path / "photos", 4).rglob("*.jpg"))
    images = [{**image, "file_name": name} for image, name in zip(IMAGES, names, strict=True)]
    write(tmp_path, {**CONTENT, "images": images[:3]})
    return tmp_path


def test_shards_carry_id_and_license_and_the_manifest_what_was_chosen(annotated: Path) -> None:
    file = annotated / "annotations.json"
    make_shards(options_for(annotated, annotations=file, licenses=("7", "attribution license")))
    split = open_split(annotated / "out", "train")
    assert split.rejected == {"license": 1, "license_unknown": 2}
    assert split.prep["licenses"] == "4,7"
    with tarfile.open(annotated / "out" / split.shards[0].name) as archive:
        text = archive.extractfile(archive.getmembers()[2]).read()  # type: ignore[union-attr]
    metadata = json.load(io.BytesIO(text))
    assert (metadata["source"], metadata["id"]) == ("sub/photo 000.jpg", 9)
    assert metadata["license"] == BY


def test_other_annotations_and_licenses_are_another_split(annotated: Path) -> None:
    file = annotated / "annotations.json"
    make_shards(options_for(annotated, annotations=file, licenses=("4",)))
    with pytest.raises(UserError, match="licenses 4 there, 1,4 now"):
        make_shards(options_for(annotated, annotations=file, licenses=("4", "1")))
    with pytest.raises(UserError, match=r"annotations [0-9a-f]{16} there, None now; licenses 4 th"):
        make_shards(options_for(annotated))
    file.write_text(file.read_text().replace('"id": 9', '"id": 10'))
    with pytest.raises(UserError, match=r"photographs: annotations [0-9a-f]{16} there, [0-9a-f]"):
        make_shards(options_for(annotated, annotations=file, licenses=("4",)))


def test_photographs_that_the_annotations_lack_are_told(
    annotated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = annotated / "annotations.json"
    make_shards(options_for(annotated, annotations=file))
    assert open_split(annotated / "out", "train").num_samples == 4
    assert f"1 of 4 photographs are not in {file}" in capsys.readouterr().err


def test_licenses_without_annotations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--licenses needs --annotations FILE"):
        options_for(tmp_path, licenses=("4",))


def test_the_digest_is_of_what_is_known() -> None:
    photos = [Photo("a.jpg", 1, metadata={"id": 1, "license": {"id": 4}})]
    assert digest_metadata(photos) == digest_metadata(
        [Photo("b.jpg", 2, metadata=photos[0].metadata)]
    )
    assert digest_metadata(photos) != digest_metadata([Photo("a.jpg", 1, metadata={"id": 1})])
