"""What a training config comes to before anybody is asked: its clients, its strategy, and what rounds will send."""

import dataclasses
from collections.abc import Sequence

from fedsup_deploy import registry
from fedsup_deploy.commands.footprint import check_memory
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.federation.batches import check_can_be_normalized
from fedsup_deploy.federation.client import HELD_OUT, ClientInfo
from fedsup_deploy.federation.jobs.train import Assignment, LocalTraining, Train
from fedsup_deploy.federation.messages import Blob
from fedsup_deploy.federation.server.balance import class_weights
from fedsup_deploy.federation.server.federation import evaluating
from fedsup_deploy.federation.server.forecast import Forecast, check_in_time, check_judged_in_time, forecast
from fedsup_deploy.federation.server.norms import NormLimits
from fedsup_deploy.federation.server.rounds import RoundParams
from fedsup_deploy.federation.server.strategy import Strategy
from fedsup_deploy.federation.simulation import CLIENTS, FederatedData
from fedsup_deploy.runs import run as runs
from fedsup_deploy.runs.clients import nothing_held_out
from fedsup_deploy.runs.federation import terms_of
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """What a config comes to.

    Args:
        space: Its search space, with the channels and classes of its data.
        data: The images and who has them.
        layout: Of the supernet.
        infos: What the clients that take part announce.
        strategy: Who trains what.
        forecast: What the rounds will send.
    """

    space: SearchSpace
    data: FederatedData
    layout: Layout
    infos: Sequence[ClientInfo]
    strategy: Strategy
    forecast: Forecast


def plan_training(config: TrainConfig) -> TrainingPlan:
    """Return what a config comes to; nobody is asked and nothing is written.

    Raises:
        ConfigError: The config is impossible: for this machine's memory, its clients, or their links.
        DataError: The images are missing or malformed.
    """
    space = runs.load_space(config)
    data = runs.load_data(config)
    space = space.with_data(data.train.image_shape[-1], len(data.train.classes))
    check_memory(config, space)
    layout = Layout(space, config.supernet.normalization)
    infos = data.populations()[CLIENTS].infos()
    check_can_be_normalized(layout, infos, batch_settings(config))
    if not config.server_has_images and not any(info.num_held_out for info in infos):
        raise nothing_held_out(config)
    strategy = make_strategy(config, space)
    # Unseen clients take no part, so only now it is known how many can.
    found = _forecast(config, data, layout, infos, strategy)
    check_in_time(found, config.federation.deadline_s, config.federation.links)
    if config.federation.links is not None and not config.server_has_images:
        judges = evaluating(infos, HELD_OUT, config.calibration.clients, config.seed)
        check_judged_in_time(layout, judges, terms_of(config), config.federation.links)
    return TrainingPlan(space, data, layout, infos, strategy, found)


def batch_settings(config: TrainConfig) -> dict[str, int]:
    """Return each setting that bounds the images of a batch, with its value."""
    return {
        "training.batch_size": config.training.batch_size,
        "calibration.batch_size": config.calibration.batch_size,
        "calibration.samples_per_client": config.calibration.samples_per_client,
    }


def _forecast(
    config: TrainConfig, data: FederatedData, layout: Layout, infos: Sequence[ClientInfo], strategy: Strategy
) -> Forecast:
    size, _, channels = data.train.image_shape
    largest = max(size, *layout.space.resolutions)
    # The clients have not counted their pixels yet; their mean and deviation are as long as these in a message.
    numbers = (1 / 3,) * channels
    preprocessing = Preprocessing(numbers, numbers, size, largest, largest, pixel_dtype=data.train.pixel_dtype)
    params = round_params(config, preprocessing)
    example = Train(
        layout, Assignment(None), Blob({}), 1 / 3, params.training, preprocessing, params.augmentation, 2**62
    )
    return forecast(layout, strategy, params, infos, config.seed, example, config.federation.links)


def make_strategy(config: TrainConfig, space: SearchSpace) -> Strategy:
    """Return the config's strategy over a space."""
    options = {name: value for name, value in config.strategy if name != "name"}
    strategy: Strategy = registry.load(config.strategy.strategy)(space=space, rounds=config.training.rounds, **options)
    return strategy


def round_params(
    config: TrainConfig, preprocessing: Preprocessing, class_counts: Sequence[int] | None = None
) -> RoundParams:
    """Return how the config's rounds run.

    Args:
        config: The settings.
        preprocessing: Of the images.
        class_counts: How many images of each class the clients train on, where that decides what each counts.
    """
    training, augmentation = config.training, config.data.augmentation
    return RoundParams(
        rounds=training.rounds,
        clients_per_round=training.clients_per_round,
        learning_rate=training.learning_rate,
        warmup_rounds=training.warmup_rounds,
        final_learning_rate=training.final_learning_rate,
        training=LocalTraining(
            epochs=training.local_epochs,
            batch_size=training.batch_size,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            clip_value=training.clip_value,
            has_logit_adjustment=training.logit_adjustment,
            class_weights=None if class_counts is None else class_weights(class_counts),
        ),
        augmentation=Augmentation(augmentation.crop_padding, augmentation.flip, preprocessing.fill),
        trim=config.averaging.trim,
        norm_limits=NormLimits(config.averaging.max_norm, config.averaging.clip_norm),
        oversample=config.federation.oversample,
        accepts_late=config.federation.stale == "accept",
        late_weight=config.federation.stale_weight,
        most_skipped=config.federation.skipped_rounds,
    )
