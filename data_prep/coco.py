"""COCO's annotations: the id and the license of each photograph, and who wants which licenses.

Of the JSON only the lists "images" and "licenses" are read, whichever file of COCO it is: captions,
instances or image_info.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

from data_prep.photos import Photo
from pix2pix.errors import UserError

_CHUNK = 2**20  # characters read at a time


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
        """The ids of the licenses that `wanted` names or numbers; raises UserError for others."""
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
    """The annotations in the JSON file `path`; raises UserError where there are none."""
    try:
        with path.open(encoding="utf-8") as file:
            found = _read_lists(file, ("images", "licenses"))
    except OSError as error:
        raise UserError(f"--annotations {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
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
    """`photos` with what `annotations` say of them.

    chosen: ids of the licenses to keep; photographs under others are left out as "license", those
    without a known one as "license_unknown". A photograph is known by its path, or by the end of
    it: "train2017/1.jpg" is "1.jpg". Raises UserError where none is known, or two may be meant.
    """
    entries = _entries(photos, annotations)
    return [_annotate(photo, entries.get(index, {}), chosen) for index, photo in enumerate(photos)]


def digest_metadata(photos: Sequence[Photo]) -> str:
    """Identity, in hex, of what is known of photographs, in their order."""
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
    """What is known of each photograph, by its index in `photos`."""
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
    """ "a/b/c.jpg", "b/c.jpg", "c.jpg"."""
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


def _read_lists(file: TextIO, names: Sequence[str]) -> dict[str, list[Any]]:
    """The lists of these names in a JSON object, read up to the last of them.

    Entry by entry: as a whole, 450 MB as instances_train2017.json has become 2.7 GB of objects.
    Raises ValueError.
    """
    text = _JsonText(file)
    found: dict[str, list[Any]] = {}
    text.expect("{")
    while text.peek() != "}" and len(found) < len(names):
        name = text.value()
        text.expect(":")
        if text.peek() == "[":
            entries = found.setdefault(name, []) if name in names else None
            text.each_entry(entries.append if entries is not None else lambda entry: None)
        else:
            text.value()
        if text.peek() != "}":
            text.expect(",")
    return found


class _JsonText:
    """JSON from a file, of which a few entries are in memory at a time."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text, self._at = "", 0
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            rest = self._text[self._at : self._at + 1]
            if rest and not rest.isspace():
                return rest
            if rest:
                self._at += 1
            elif not self._read_more():
                return ""

    def expect(self, character: str) -> None:
        """Pass over `character`; raises ValueError where another one stands."""
        found = self.peek()
        if found != character:
            raise ValueError(f"'{character}' expected, not '{found}'")
        self._at += 1

    def value(self) -> Any:
        """Read one value; raises ValueError."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                # Else a number may go on: 1 of 1e+5 is one, until the 5 is there.
                if end + 2 < len(self._text) or not self._read_more():
                    self._at = end
                    return value
            except ValueError:
                if not self._read_more():
                    raise

    def each_entry(self, use: Callable[[Any], None]) -> None:
        """Hand each entry of a list to `use`; raises ValueError."""
        self.expect("[")
        while self.peek() != "]":
            use(self.value())
            if self.peek() != "]":
                self.expect(",")
        self.expect("]")

    def _read_more(self) -> bool:
        """Drop what was read, and double the rest, so that a long value is tried rarely."""
        rest = self._text[self._at :]
        more = self._file.read(max(_CHUNK, len(rest)))
        if more:
            self._text, self._at = rest + more, 0
        return bool(more)
