"""Tasks by name: other data, other networks, weights of the user's own, and a sentence for what does not fit."""

import pytest
import safetensors.torch
import torch
import torchvision

import dsfp_env
from dsfp_env import InputError, load_task
from dsfp_env.networks import PlainNet, make_network, resnet20
from dsfp_env.tasks.loading import begin_task

OWN = "test_loading:make_small"


def make_small(num_classes):
    return PlainNet((8, "M", 16), grid=1, hidden=(), norm=True, num_classes=num_classes)


@pytest.fixture(scope="module")
def tree(image_files):
    """A task on a tree of images, whose network is trained for an epoch."""
    return load_task(
        f"imagefolder:{image_files}", device="cpu", network=OWN, recipe="fast(epochs=1, batch_size=16)"
    )


def test_a_tree_of_images(tree, capsys):
    assert list(tree.agents.values()) == ["features.conv1", "features.conv2"]
    assert tree.architecture == (OWN, 10)
    assert tree.train.images.shape == (270, 3, 16, 16)
    assert dsfp_env.Evaluator(tree, "l1").evaluate({"conv_0": 50, "conv_1": 50}).filters == 12


def test_training_is_shown_and_kept(image_files, capsys, monkeypatch):
    monkeypatch.setattr(
        dsfp_env.tasks.loading, "_load", dsfp_env.tasks.loading._load.__wrapped__
    )  # no memory of tasks
    name, options = f"imagefolder:{image_files}", {"network": OWN, "recipe": "fast(epochs=2, batch_size=32)"}
    first = load_task(name, device="cpu", seed=1, **options)
    assert "epoch 2/2, loss" in capsys.readouterr().err
    again = load_task(name, device="cpu", seed=1, **options)
    assert capsys.readouterr().err == ""
    assert again is not first
    assert all(map(torch.equal, first.network.state_dict().values(), again.network.state_dict().values()))


def test_a_task_may_be_looked_at_before_it_is_trained(tree):
    begun = begin_task(tree.name, device="cpu", network=OWN, recipe="fast(epochs=1, batch_size=16)")
    assert (begun.recipe.epochs, begun.recipe.shift, begun.recipe.flip) == (1, 2, True)  # an eighth of 16 pixels
    untrained = begun.untrained()
    assert untrained.agents == tree.agents
    assert not torch.equal(untrained.network.classifier.fc1.weight, tree.network.classifier.fc1.weight)
    trained = begun.trained().network.state_dict()
    assert all(map(torch.equal, trained.values(), tree.network.state_dict().values()))
    with pytest.raises(InputError, match="made by a function as a whole"):
        begin_task("tiny_tasks:tiny")


@pytest.mark.parametrize("wrap", ["plain", "safetensors", "state_dict", "parallel"])
def test_weights_of_ones_own(tree, tmp_path, wrap):
    state = tree.network.state_dict()
    file = tmp_path / ("w.safetensors" if wrap == "safetensors" else "w.pt")
    if wrap == "safetensors":
        safetensors.torch.save_file(state, file)
    elif wrap == "parallel":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, file)
    else:
        torch.save({"state_dict": state} if wrap == "state_dict" else state, file)
    task = load_task(tree.name, device="cpu", network=OWN, weights=str(file))
    assert all(map(torch.equal, task.network.state_dict().values(), state.values()))


def test_training_can_go_on_from_weights(tree, tmp_path):
    torch.save(tree.network.state_dict(), tmp_path / "w.pt")
    options = {"network": OWN, "weights": str(tmp_path / "w.pt")}
    on = load_task(tree.name, device="cpu", **options, recipe="fast(epochs=1, batch_size=64, learning_rate=1e-6)")
    before, after = tree.network.classifier.fc1.weight, on.network.classifier.fc1.weight
    assert torch.allclose(before, after, atol=1e-3)
    assert not torch.equal(before, after)


def test_weights_that_do_not_fit_get_a_sentence(tree, tmp_path):
    file = tmp_path / "w.pt"
    for content, sentence in {
        b"nonsense": "could not be read",
        None: "could not be read",
    }.items():
        if content:
            file.write_bytes(content)
        with pytest.raises(InputError, match=sentence):
            load_task(tree.name, network=OWN, weights=str(file if content else tmp_path / "absent.pt"))
    for content in (make_small(7).state_dict(), {"conv.weight": torch.zeros(1)}, [1, 2]):
        torch.save(content, file)
        with pytest.raises(InputError, match="do not fit PlainNet"):
            load_task(tree.name, network=OWN, weights=str(file))


def test_published_weights(tree, monkeypatch):
    """What torchvision would download is made here; the rest is as with it."""
    network = torchvision.models.resnet18(num_classes=10)

    def get_model(name, weights=None, **options):
        if weights is None:
            return torchvision.models.resnet18(**options)
        assert (name, weights) == ("resnet18", "DEFAULT")
        return network

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    task = load_task(tree.name, device="cpu", weights="DEFAULT")
    assert torch.equal(task.network.fc.weight, network.fc.weight)
    assert len(task.agents) == 20
    with pytest.raises(InputError, match="There are no weights 'NONE' for resnet18"):
        load_task(tree.name, device="cpu", weights="NONE")


@pytest.mark.parametrize(("name", "classes"), [("cifar10-resnet20", 10), ("cifar100-resnet20", 100)])
def test_cifar(cifar_files, tmp_path, name, classes):
    torch.save(resnet20(classes).state_dict(), tmp_path / "w.pt")
    task = load_task(name, data_root=cifar_files, device="cpu", weights=str(tmp_path / "w.pt"))
    assert (len(task.agents), task.architecture) == (19, ("resnet20", classes))
    assert task.network.linear.out_features == classes
    assert task.graph.costs().filters == 688


def test_names_and_options_that_do_not_fit_get_a_sentence(tmp_path):
    for (name, options), sentence in {
        ("cifar10", ()): "Unknown task 'cifar10'. Did you mean 'cifar10-NETWORK'",
        ("cifar10-resnet21", ()): "Unknown network of this package or torchvision 'resnet21'",
        ("imagefolder:", ()): "Could not import the task 'imagefolder:'",
        (f"imagefolder:{tmp_path}", ()): "is no tree of images",
        (
            "digits",
            (("download", True),),
        ): "task 'digits' takes no option 'download': it takes weights, recipe.",
        ("test_tasks:make_task", (("recipe", "fast"),)): "takes no option 'recipe': it takes none.",
        ("cifar10-vgg16", (("recipe", "slow"),)): "Unknown recipe 'slow'",
        (
            "cifar10-vgg16",
            (("network", "vgg16"),),
        ): "takes no option 'network': it takes weights, recipe, d",
    }.items():
        with pytest.raises(InputError) as refusal:
            load_task(name, **dict(options))
        assert sentence in str(refusal.value)


def test_every_network_of_the_issue_has_a_task_name():
    for name in ("alexnet", "vgg16", "vgg16-bn", "resnet20", "resnet56", "resnet18", "torchvision.vgg11"):
        for data in ("cifar10", "cifar100"):
            dsfp_env.tasks.loading.check_task(f"{data}-{name}")
    assert make_network("alexnet-bn", 100)(torch.zeros(1, 3, 32, 32)).shape == (1, 100)
