import pytest

from pix2pix.errors import UserError
from pix2pix.system.urls import check_place, join


@pytest.mark.parametrize(
    ("root", "relative", "place"),
    [
        ("shards", "a.tar", "shards/a.tar"),
        ("/data/indexed", "../others/a b.tar", "/data/others/a b.tar"),
        ("https://host/shards", "a b%.tar", "https://host/shards/a%20b%25.tar"),
        ("https://host/x/shards", "../others/a.tar", "https://host/x/others/a.tar"),
        ("s3://bucket/shards", "a b.tar", "s3://bucket/shards/a b.tar"),
        ("s3://bucket", "../../a.tar", "s3://bucket/a.tar"),
        ("hf://datasets/owner/name@main/x", "a.tar", "hf://datasets/owner/name@main/x/a.tar"),
    ],
)
def test_a_path_is_joined_to_a_folder_and_to_a_url(root: str, relative: str, place: str) -> None:
    assert join(root, relative) == place


@pytest.mark.parametrize("place", ["shards", "a/b:c", "https://host/x", "s3://bucket", "/data"])
def test_folders_and_urls_are_places(place: str) -> None:
    check_place(place, "shards")


@pytest.mark.parametrize(
    "place",
    ["", "ftp://host/x", "https://me:secret@host/x", "https://host/x?sig=secret", "pipe:cat x"],
)
def test_a_place_with_a_secret_or_a_program_is_refused(place: str) -> None:
    with pytest.raises(UserError, match="--shards") as caught:
        check_place(place, "shards")
    assert "secret" not in str(caught.value)
