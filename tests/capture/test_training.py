"""Training with compiled forwards, optimizers and whole steps: the bits of eager training."""

from __future__ import annotations

import pytest

import flambeau as torch
from tests.capture.programs import agree, replayed

nn = torch.nn
F = nn.functional

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
}


def network():
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 3)
    )


def batches(count):
    for _ in range(count):
        yield torch.randn(5, 6), torch.randint(0, 3, (5,))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_compiled_loss(optimizer):
    def program(compile):
        model = network()
        update = OPTIMIZERS[optimizer](model.parameters())
        loss_of = compile(lambda x, y: F.cross_entropy(model(x), y))
        results = []
        for x, y in batches(10):
            update.zero_grad()
            loss = loss_of(x, y)
            loss.backward()
            update.step()
            results.append(loss.detach())
        return [*results, *model.state_dict().values()]

    replayed(program, 5)


def test_a_compiled_module():
    def program(compile):
        model = network()
        update = torch.optim.Adam(model.parameters(), lr=0.01)
        fast = compile(model)
        results = []
        for k, (x, y) in enumerate(batches(12)):
            if k == 6:
                model.eval()
                with torch.no_grad():
                    results.append(fast(x))
                model.train()
            loss = F.cross_entropy(fast(x), y)
            loss.backward()
            update.step()
            update.zero_grad(set_to_none=k % 2 == 0)
            results.append(loss.detach())
        return [*results, *model.state_dict().values()]

    replayed(program, 5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_whole_step(optimizer):
    def program(compile):
        model = network()
        update = OPTIMIZERS[optimizer](model.parameters())

        def step(x, y):
            update.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            update.step()
            return loss.detach()

        step = compile(step)
        results = [step(x, y) for x, y in batches(10)]
        for group in update.param_groups:
            group["lr"] *= 0.5
        results += [step(x, y) for x, y in batches(4)]
        results += [p.grad for p in model.parameters()]
        return [*results, *model.state_dict().values(), *(p._version for p in model.parameters())]

    replayed(program, 7)


def test_a_schedule_around_a_whole_step():
    def program(compile):
        model = network()
        update = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(update, 2)

        def step(x, y):
            loss = F.cross_entropy(model(x), y)
            update.zero_grad()
            loss.backward()
            update.step()
            return loss

        step = compile(step)
        results = []
        for x, y in batches(10):
            results.append(step(x, y).detach())
            schedule.step()
        return [*results, *model.state_dict().values()]

    replayed(program, 5)


def test_a_schedule_inside_a_step_is_not_skipped():
    def program(compile):
        model = network()
        update = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(update, 2)

        def step(x, y):
            loss = F.cross_entropy(model(x), y)
            update.zero_grad()
            loss.backward()
            update.step()
            schedule.step()
            return loss

        step = compile(step)
        results = [step(x, y).detach() for x, y in batches(10)]
        return [*results, *model.state_dict().values(), update.param_groups[0]["lr"]]

    agree(program)


def test_accumulated_gradients_and_clipping():
    def program(compile):
        model = network()
        update = torch.optim.Adam(model.parameters(), lr=0.01)

        def part(x, y):
            loss = F.cross_entropy(model(x), y) / 2
            loss.backward()
            return loss.detach()

        part = compile(part)
        results = []
        for k, (x, y) in enumerate(batches(16)):
            results.append(part(x, y))
            if k % 2:
                for p in model.parameters():
                    p.grad.mul_(0.5)
                update.step()
                update.zero_grad()
        return [*results, *model.state_dict().values()]

    replayed(program, 4)


def test_two_models_and_two_losses():
    def program(compile):
        first, second = nn.Linear(4, 4), nn.Linear(4, 4)
        one = torch.optim.SGD(first.parameters(), lr=0.1)
        two = torch.optim.SGD(second.parameters(), lr=0.1)
        generate, judge = compile(first), compile(second)
        results = []
        for _ in range(10):
            x = torch.randn(3, 4)
            made = generate(x)
            loss = judge(made.detach()).pow(2).sum() + judge(x).sum()
            two.zero_grad()
            loss.backward()
            two.step()
            one.zero_grad()
            other = judge(made).sum()
            other.backward()
            one.step()
            results += [loss.detach(), other.detach()]
        return [*results, *first.state_dict().values(), *second.state_dict().values()]

    replayed(program, 3)


def test_a_module_compiled_in_place():
    torch.manual_seed(0)
    model = network()
    expected = [model(x).detach() for x, _ in batches(6)]
    torch.manual_seed(0)
    model = network()
    model.compile()
    found = [model(x).detach() for x, _ in batches(6)]
    assert all(map(torch.equal, expected, found))
    assert model._compiled_call_impl.replays >= 3
    assert list(model.state_dict()) == list(network().state_dict())


def test_no_growth_over_many_steps():
    model = network()
    update = torch.optim.Adam(model.parameters(), lr=0.01)
    loss_of = torch.compile(lambda x, y: F.cross_entropy(model(x), y))
    for x, y in batches(300):
        update.zero_grad()
        loss_of(x, y).backward()
        update.step()
    assert loss_of.replays > 290
    [captured] = loss_of.captured.values()
    assert len(captured) <= 2
    graphs = [c.outputs.graph.operator.recordings for c in captured]
    assert all(len(known) <= 4 for known in graphs)
