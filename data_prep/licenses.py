"""What a sample's JSON says of its license: as preparation writes it, and as others do."""

import json
from collections.abc import Mapping


def license_terms(metadata: bytes) -> list[str]:
    """Return what the license is called, most telling first: name, id, address; [] if unknown.

    Either `license` or `licence`, as shards made earlier spell it, in any case; a text, a number,
    or a mapping such as COCO's.
    """
    try:
        fields = {str(name).lower(): value for name, value in json.loads(metadata).items()}
    except (ValueError, AttributeError):
        return []
    told = fields.get("license", fields.get("licence"))
    if isinstance(told, Mapping):
        parts = [told.get(name) for name in ("name", "id", "url")]
    else:
        parts = [told]
    return [str(part).strip() for part in parts if part not in (None, "")]
