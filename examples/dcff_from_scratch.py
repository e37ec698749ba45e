"""Train compact networks with fused filters from scratch: python examples/dcff_from_scratch.py 30 (epochs).

Both have half the filters of the digits network. "geometric" lowers the temperature of dynamic-coded filter fusion
slowly, so that filters are fused for a good part of the epochs; with "published", the paper's, they are only
selected from the second epoch on.

The VGG-16 of the paper on CIFAR-10 (93.47 % there), nearly as in its released code, for which you need a GPU:

    splits = dsfp_env.datasets.cifar("cifar10", Path("data"), download=True)
    train, validation, test = (split.to(torch.device("cuda")) for split in splits)
    recipe = Recipe(epochs=300, batch_size=256, optimizer="sgd", learning_rate=0.1, schedule="steps",
                    label_smoothing=0.0, shift=4, flip=True)
    network = train_compact(published_skeleton("vgg16_dcff"), train, recipe, seed=0, schedule="published",
                            validation=validation, checkpoint=Path("vgg16_dcff.training"))

It differs: 45,000 images train, and the best epoch is that on the other 5,000, where the released code trains on
all and reports the best epoch on the test split.
"""

import sys

import dsfp_env
from dsfp_env.dcff.training import skeleton, train_compact
from dsfp_env.training.accuracy import measure_accuracy
from dsfp_env.training.recipes import Recipe

task = dsfp_env.load_task("digits", device="cpu")
recipe = Recipe(epochs=int(sys.argv[1]))
compact = skeleton(task.network, task.graph, dict.fromkeys(task.graph.layers, 0.5))
for schedule in ("geometric", "published"):
    network = train_compact(compact, task.train, recipe, 0, schedule=schedule, validation=task.validation)
    costs = dsfp_env.ChannelGraph.trace(network, task.test.images[:1]).costs()
    accuracy = measure_accuracy(network, task.test)
    print(f"{schedule}: test accuracy {accuracy:.4f}, {costs.macs} MACs, {costs.params} parameters")
