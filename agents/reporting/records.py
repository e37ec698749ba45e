"""What the files of a run may say: a schema for each, see `run_folder`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from dsfp_env.common.schemas import Counts, Name, Natural, Positive, Ratios, Share, Strict, Values

Versions = dict[Name, Name]  # of packages
RelativeMacs = Annotated[float, Meta(gt=0, le=1)]
Seconds = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]


class Settings(Strict):
    """`settings.json`; that of a folder of many runs says besides what must be the same for work to go on."""

    settings: Values
    versions: Versions
    same: Values | None = None


class Line(Strict):
    """A line of `evaluations.jsonl`."""

    evaluation: Positive
    ratios: Ratios
    validation_accuracy: Share
    macs: Positive
    relative_macs: RelativeMacs
    params: Positive
    reward: float


class BestSoFar(Line):
    """The best line of a run that was interrupted."""

    test_accuracy: None


class Entry(Strict, kw_only=True):
    """A network of a result."""

    ratios: Ratios
    validation_accuracy: Share
    test_accuracy: Share
    macs: Positive
    relative_macs: RelativeMacs
    params: Positive
    filters: Positive
    filters_kept: Counts
    reward: float
    validation_metric: float | None = None  # of a task whose metric is not accuracy, in its own units
    test_metric: float | None = None
    predicted_latency: Seconds | None = None  # this and what follows under a budget of time
    measured_latency: Seconds | None = None
    latency_spread: NotNegative | None = None


class FineTuned(Strict):
    """A network after the long fine-tune."""

    validation_accuracy: Share
    test_accuracy: Share
    best_epoch: Positive
    epochs: Positive
    validation_metric: float | None = None  # as of an entry
    test_metric: float | None = None


class Noted(Strict):
    """A line of `journal.jsonl`."""

    noted: tuple[list[Any], Any]  # question and answer
    checksum: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]


# What is noted in a journal, by the kind of question: of an evaluation the accuracy (of a criterion that is tried
# too), of a final network its entry, of one that was fine-tuned for long what came of that.
NOTED: dict[str, Any] = {
    "outcome": tuple[tuple[Literal["outcome"], Ratios, Natural], Share],
    "criterion": tuple[tuple[Literal["criterion"], Name, Ratios, Natural], Share],
    "original": tuple[tuple[Literal["original"]], Entry],
    "final": tuple[tuple[Literal["final"], Ratios, list[Natural]], Entry],
    "fine_tuned": tuple[tuple[Literal["fine_tuned"], Ratios, Name, Natural], FineTuned],
}


class Baselines(Strict):
    """What a result is compared with, see `finals.Baselines`."""

    uniform: Entry
    uniform_at_greedy: Entry
    uniform_best_reward: Entry
    random_search: Entry
    random_search_equal_macs: Entry | None = None  # one of these
    random_search_equal_params: Entry | None = None
    random_search_equal_latency: Entry | None = None


class LongFineTune(Strict):
    """The finish, see `long_fine_tune`."""

    recipe: Name
    networks: Annotated[dict[Name, FineTuned], Meta(min_length=1)]


class Criteria(Strict):
    """How the criterion was chosen, see `criteria_choice`."""

    mean_reward: dict[Name, float]
    joint_actions: Natural
    evaluations: Natural


class Volumes(Strict):
    """Hypervolumes."""

    tried: Share
    random_search: Share


class Summary(Strict, kw_only=True):
    """The settings that a result depends on and names."""

    task: Name
    agent: Name
    seed: Natural
    evaluations: Natural
    horizon: Positive
    credit: Name
    observation: Name
    criterion: Name
    macs_budget: float | None
    kd_batches: Natural | None
    min_filters: Positive
    round_to: Positive
    network: Name | None
    image_size: Positive | None
    weights: Name | None
    recipe: Name | None
    reward: Name
    task_seed: Natural
    layers: Name | None = None  # and what follows: runs of before did not say
    tie: Name | None = None
    agents_per: Name = "layer"
    batch: Positive = 1
    warm_start: Name | None = None


class Result(Summary, kw_only=True):
    """`result.json` of a run that is at its end."""

    original: Entry
    best: Entry
    greedy: Entry
    baselines: Baselines
    hypervolume: Volumes
    pareto: Annotated[list[Line], Meta(min_length=1)]
    criteria: Criteria | None = None
    fine_tuned: LongFineTune | None = None
    exported: dict[Name, dict[Name, Any]] | None = None
    metric: dict[Name, Name | float] | None = None
    params_budget: Share | None = None
    latency_budget: Share | Name | None = None
    deployed: Name | None = None
    fill_budget: bool | None = None
    latency_model: dict[Name, Any] | None = None


class Interrupted(Summary, kw_only=True):
    """`result.json` of a run that is not."""

    interrupted: Literal[True]
    best: BestSoFar
