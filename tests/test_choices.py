"""The configuration, which is read without torch, offers what the networks and losses can do."""

from pix2pix import config, config_checks
from pix2pix.cli.options import flags_of
from pix2pix.model import color, losses, networks
from pix2pix.training.step import PRECISIONS

FLAGS = flags_of(config.TrainConfig)


def test_choices_of_the_configuration_are_those_of_the_rooms_that_do_the_work():
    assert FLAGS["gan_loss"].choices == losses.GAN_LOSSES
    assert FLAGS["norm"].choices == networks.NORMS
    assert FLAGS["color_space"].choices == color.COLOR_SPACES
    assert set(FLAGS["precision"].choices) == set(PRECISIONS)
    assert config_checks.IMAGE_SIZES == networks.IMAGE_SIZES
