"""Whole models: steps of training, inference one by one, decoding with a cache."""

import networks

from workloads import workload

FLOOR = 1.1


def _classifier(lab, model, optimizer, images, classes):
    labels = lab.integers(1, classes, images.shape[0])
    criterion = lab.torch.nn.CrossEntropyLoss()
    return lab.training(model, optimizer, lambda forward: criterion(forward(images), labels))


@workload("training.mlp_sgd", "MLP 784-128-10, batch 64, SGD", floor=1.2, compiled=True)
def mlp_sgd(lab):
    model = networks.mlp(lab.torch)
    optimizer = lab.torch.optim.SGD(model.parameters(), lr=0.1)
    return _classifier(lab, model, optimizer, lab.normal(2, 64, 784), 10)


@workload("training.mlp_adam", "MLP 784-128-10, batch 64, Adam", floor=1.2, compiled=True)
def mlp_adam(lab):
    model = networks.mlp(lab.torch)
    optimizer = lab.torch.optim.Adam(model.parameters(), lr=1e-3)
    return _classifier(lab, model, optimizer, lab.normal(2, 64, 784), 10)


@workload("training.lenet", "LeNet-5, batch 64, SGD with momentum", floor=1.2, compiled=True)
def lenet(lab):
    model = networks.lenet(lab.torch)
    optimizer = lab.torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return _classifier(lab, model, optimizer, lab.normal(3, 64, 1, 28, 28), 10)


@workload("training.resnet18", "ResNet-18, 32 × 32, batch 32, SGD", floor=FLOOR, compiled=True)
def resnet18(lab):
    model = networks.resnet18(lab.torch)
    optimizer = lab.torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return _classifier(lab, model, optimizer, lab.normal(4, 32, 3, 32, 32), 10)


@workload("training.gpt", "GPT, 4 layers of 256, context 128, batch 8", floor=FLOOR, compiled=True)
def gpt(lab):
    model = networks.gpt(lab.torch, layers=4, width=256, heads=8, context=128, vocabulary=8192)
    optimizer = lab.torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids, following = lab.integers(5, 8192, 8, 128), lab.integers(6, 8192, 8 * 128)
    criterion = lab.torch.nn.CrossEntropyLoss()
    return lab.training(
        model, optimizer, lambda forward: criterion(forward(ids).view(-1, 8192), following)
    )


@workload("training.lstm", "LSTM, 2 layers of 256, 35 steps, batch 20", floor=FLOOR)
def lstm(lab):
    model = networks.lstm(lab.torch, vocabulary=4096, width=256)
    optimizer = lab.torch.optim.SGD(model.parameters(), lr=0.1)
    ids, following = lab.integers(7, 4096, 35, 20), lab.integers(8, 4096, 35 * 20)
    criterion = lab.torch.nn.CrossEntropyLoss()
    return lab.training(
        model, optimizer, lambda forward: criterion(forward(ids).view(-1, 4096), following)
    )


@workload("training.vae", "VAE 784-400-20, batch 64, Adam", floor=FLOOR, compiled=True)
def vae(lab):
    model = networks.vae(lab.torch)
    optimizer = lab.torch.optim.Adam(model.parameters(), lr=1e-3)
    images, noise = lab.normal(9, 64, 784).sigmoid(), lab.normal(10, 64, 20)
    return lab.training(model, optimizer, lambda forward: forward(images, noise))


@workload("inference.resnet18", "ResNet-18, one image of 32 × 32", floor=FLOOR, compiled=True)
def resnet18_inference(lab):
    model = lab.compiled(networks.resnet18(lab.torch).eval())
    image = lab.normal(11, 1, 3, 32, 32)
    return lab.without_grad(lambda: model(image))


@workload("inference.gpt", "GPT, 16 tokens decoded with a cache", inner=16, floor=FLOOR)
def gpt_decoding(lab):
    model = networks.gpt(lab.torch, layers=4, width=256, heads=8, context=128, vocabulary=8192)
    model.eval()
    start = lab.integers(12, 8192, 1, 1)

    def step():
        token, caches = start, None
        for position in range(16):
            logits, caches = model.decode(token, position, caches)
            token = logits[:, -1:].argmax(-1)
        return logits

    return lab.without_grad(step)
