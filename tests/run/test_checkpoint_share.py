"""Promises of a rank's share: every entry once, bytes balanced, and a copy that stays as it was."""

import pytest
import torch

from pix2pix.model.networks import PatchDiscriminator, UNetGenerator
from pix2pix.run.checkpoint_share import Staging, share_of


def sizes_at_256_px() -> dict[tuple[str, ...], int]:
    """Every tensor of a checkpoint, in bytes: weights, both moments, the generator's average."""
    with torch.device("meta"):
        generator, discriminator = UNetGenerator(1, 2), PatchDiscriminator(3)
    sizes = {}
    for network, copies in ((generator, 4), (discriminator, 3)):
        for name, tensor in network.state_dict().items():
            for number in range(copies):
                sizes[type(network).__name__, str(number), name] = tensor.nbytes
    return sizes


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 8, 16])
def test_every_rank_writes_at_most_a_tenth_more_than_its_part(world_size):
    sizes = sizes_at_256_px()
    assert sum(sizes.values()) > 860_000_000
    shares = [share_of(sizes, rank, world_size) for rank in range(world_size)]
    assert sorted(name for share in shares for name in share) == sorted(sizes)
    largest = max(sum(sizes[name] for name in share) for share in shares)
    assert largest <= 1.1 * sum(sizes.values()) / world_size


def test_the_copy_has_the_same_names_values_and_layout():
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    values = {"a": {"weight": weight, "groups": [{"lr": 0.1}]}, "steps": torch.tensor(7)}
    copy = Staging().copy(values, 0, 1)
    assert torch.equal(copy["a"]["weight"], weight)
    assert copy["a"]["weight"].stride() == weight.stride()
    assert (copy["steps"], copy["a"]["groups"]) == (torch.tensor(7), [{"lr": 0.1}])


def test_the_copy_stays_as_it_was_while_the_training_goes_on():
    values = {"weight": torch.ones(5), "groups": [{"lr": 0.1}]}
    copy = Staging().copy(values, 0, 1)
    values["weight"].mul_(3)
    values["groups"][0]["lr"] = 0.5
    assert copy["weight"].tolist() == [1] * 5
    assert copy["groups"] == [{"lr": 0.1}]


def test_memory_is_kept_from_one_copy_to_the_next_unless_the_shape_changed():
    staging = Staging()
    first = staging.copy({"weight": torch.ones(5)}, 0, 1)["weight"]
    again = staging.copy({"weight": torch.zeros(5)}, 0, 1)["weight"]
    assert again.data_ptr() == first.data_ptr()
    assert again.tolist() == [0] * 5
    assert staging.copy({"weight": torch.ones(2, 3)}, 0, 1)["weight"].shape == (2, 3)


def test_ranks_copy_disjoint_parts_of_the_whole():
    values = {"network": {str(n): torch.full((n + 1,), n) for n in range(9)}}
    shares = [Staging().copy(values, rank, 3)["network"] for rank in range(3)]
    merged = {name: tensor for share in shares for name, tensor in share.items()}
    assert sum(map(len, shares)) == len(merged) == 9
    assert all(torch.equal(merged[name], values["network"][name]) for name in merged)
