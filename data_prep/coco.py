"""COCO's annotations: the id and the license of each photograph, and who wants which licenses.

Of the JSON only the lists "images" and "licenses" are read, whichever file of COCO it is: captions,
instances or image_info.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from data_prep.photos import Photo
from pix2pix.errors import UserError


@dataclass(frozen=True)
class Annotations:
    """What a file of annotations says of photographs.

    metadata: by file name, the fields for KEY.json: "id", and "license" with its id, name and url
    as far as they are known. licenses: name by id, both as text.
    """

    path: Path
    metadata: Mapping[str, Mapping[str, Any]]
    licenses: Mapping[str, str]

    def choose(self, wanted: Sequence[str]) -> frozenset[str]:
        """Return the ids of the licenses that `wanted` names; raises UserError for others."""
        by_name = {name.lower(): number for number, name in self.licenses.items()}
        chosen = {word: by_name.get(word.lower(), word) for word in wanted}
        for word, number in chosen.items():
            if number not in self.licenses:
                known = "; ".join(f"{number} {name}" for number, name in self.licenses.items())
                raise UserError(
                    f"--licenses '{word}': {self.path} has no such license. It has: {known}"
                )
        return frozenset(chosen.values())


def read_annotations(path: Path) -> Annotations:
    """Read the annotations in the JSON file `path`; raises UserError where there are none."""
    try:
        with path.open("rb") as file:
            found = _read_lists(file, ("images", "licenses"))
    except OSError as error:
        raise UserError(f"--annotations {path} cannot be read: {error.strerror}") from error
    except ijson.JSONError as error:
        raise UserError(f"--annotations {path} is not JSON, or is cut short: {error}") from error
    if "images" not in found:
        raise UserError(f'--annotations {path} has no list "images", as COCO\'s files have')
    try:
        licenses = {entry["id"]: entry for entry in found.get("licenses", ())}
        metadata = _metadata(path, found["images"], licenses)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'--annotations {path}: an image needs "file_name" and "id", a license "id", '
            f"as COCO's have: {error!r}"
        ) from error
    names = {str(number): str(entry.get("name", "")) for number, entry in licenses.items()}
    return Annotations(path, metadata, names)


def annotate(
    photos: Sequence[Photo], annotations: Annotations, chosen: frozenset[str] | None = None
) -> list[Photo]:
    """Return `photos` with what `annotations` say of them.

    chosen: ids of the licenses to keep; photographs under others are left out as "license", those
    without a known one as "license_unknown". A photograph is known by its path, or by the end of
    it: "train2017/1.jpg" is "1.jpg". Raises UserError where none is known, or two may be meant.
    """
    entries = _entries(photos, annotations)
    return [_annotate(photo, entries.get(index, {}), chosen) for index, photo in enumerate(photos)]


def digest_metadata(photos: Sequence[Photo]) -> str:
    """Return the identity, in hex, of what is known of photographs, in their order."""
    text = json.dumps([photo.metadata for photo in photos], sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def _annotate(photo: Photo, metadata: Mapping[str, Any], chosen: frozenset[str] | None) -> Photo:
    reject = photo.reject
    if chosen is not None and reject is None:
        if "license" not in metadata:
            reject = "license_unknown"
        elif str(metadata["license"]["id"]) not in chosen:
            reject = "license"
    return replace(photo, metadata=dict(metadata), reject=reject)


def _entries(photos: Sequence[Photo], annotations: Annotations) -> dict[int, Mapping[str, Any]]:
    """Return what is known of each photograph, by its index in `photos`."""
    claims: dict[str, str] = {}
    entries = {}
    for index, photo in enumerate(photos):
        file_name = next((end for end in _ends(photo.name) if end in annotations.metadata), None)
        if file_name is None:
            continue
        other = claims.setdefault(file_name, photo.name)
        if other != photo.name:  # one of the two would get the other's license
            raise UserError(
                f"--annotations {annotations.path}: '{file_name}' may be {other} or {photo.name}; "
                "give --photos the folder of the one that is meant"
            )
        entries[index] = annotations.metadata[file_name]
    if not entries:
        raise UserError(
            f"--annotations {annotations.path} knows none of the photographs: it has names such as "
            f"'{next(iter(annotations.metadata), '')}', --photos such as '{photos[0].name}'"
        )
    return entries


def _ends(name: str) -> Iterator[str]:
    """Yield "a/b/c.jpg", "b/c.jpg", "c.jpg" for the first of them."""
    while name:
        yield name
        name = name.partition("/")[2]


def _metadata(
    path: Path, images: Sequence[Mapping[str, Any]], licenses: Mapping[Any, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    licenses = {
        number: {key: entry[key] for key in ("id", "name", "url") if key in entry}
        for number, entry in licenses.items()
    }
    metadata: dict[str, dict[str, Any]] = {}
    for image in images:
        fields = {"id": image["id"]}
        if image.get("license") is not None:
            number = image["license"]
            fields["license"] = licenses.get(number, {"id": number})
        if metadata.setdefault(image["file_name"], fields) != fields:
            raise UserError(f"--annotations {path} has two images named {image['file_name']}")
    return metadata


def _read_lists(file: BinaryIO, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return the lists of these names in a JSON object, read up to the end of the last of them.

    Event by event: as a whole, 450 MB as instances_train2017.json has become 2.7 GB of objects.

    Raises:
        ijson.JSONError: what was read is no JSON, or the file is cut short before the lists are.
    """
    found: dict[str, Any] = {}
    builder = None  # of the value that is being read, where it is wanted
    depth = 0
    for event, value in ijson.basic_parse(file, use_float=True):
        if event in ("end_map", "end_array"):
            depth -= 1
        if event == "map_key" and depth == 1:
            name = value
            builder = ijson.ObjectBuilder() if name in names else None
        elif builder is not None:
            builder.event(event, value)
            if depth == 1 and event not in ("start_map", "start_array"):  # it is complete
                found[name] = builder.value
                builder = None
        if event in ("start_map", "start_array"):
            depth += 1
        if len(found) == len(names):
            break
    return {name: value for name, value in found.items() if isinstance(value, list)}
