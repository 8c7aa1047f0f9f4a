"""Programs about ``no_grad`` and its relatives; see `tests/semantics.py`."""

from tests.semantics import Cases, attempt

CASES = Cases()
case = CASES.add


def leaf(torch):
    return torch.tensor([1.0, 2.0], requires_grad=True)


@case
def contexts(torch):
    x = leaf(torch)
    log = [torch.is_grad_enabled()]
    with torch.no_grad():
        log += [torch.is_grad_enabled(), (x * 2).requires_grad]
        with torch.enable_grad():
            log += [torch.is_grad_enabled(), (x * 2).requires_grad]
        log.append(torch.is_grad_enabled())
    with torch.set_grad_enabled(False):
        log.append(torch.is_grad_enabled())
    return [*log, torch.is_grad_enabled()]


@case
def set_at_once(torch):
    log = []
    torch.set_grad_enabled(False)
    log.append(torch.is_grad_enabled())
    torch.set_grad_enabled(True)
    return [*log, torch.is_grad_enabled()]


@case
def decorators(torch):
    @torch.no_grad()
    def quiet():
        return torch.is_grad_enabled()

    @torch.no_grad
    def bare():
        return torch.is_grad_enabled()

    @torch.enable_grad()
    def loud():
        return torch.is_grad_enabled()

    @torch.set_grad_enabled(False)
    def off():
        return torch.is_grad_enabled()

    @torch.inference_mode()
    def inference():
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    with torch.no_grad():
        inner = loud()
    return quiet(), bare(), inner, off(), inference(), torch.is_grad_enabled(), quiet.__name__


@case
def generators(torch):
    log = []

    @torch.no_grad()
    def numbers():
        try:
            log.append(torch.is_grad_enabled())
            got = yield torch.is_grad_enabled()
            log.append(got)
            yield torch.is_grad_enabled()
        finally:
            log.append(["closed", torch.is_grad_enabled()])

    steps = numbers()
    first = next(steps)
    between = torch.is_grad_enabled()
    second = steps.send("sent")
    steps.close()
    return first, between, second, log, torch.is_grad_enabled()


@case
def generator_gets_exceptions(torch):
    log = []

    @torch.no_grad()
    def numbers():
        try:
            yield 1
        except ValueError as error:
            log.append([str(error), torch.is_grad_enabled()])
            yield 2

    steps = numbers()
    next(steps)
    return steps.throw(ValueError("thrown")), log, torch.is_grad_enabled()


@case
def exception_restores(torch):
    def fail():
        with torch.no_grad():
            raise ValueError("inside")

    return attempt(torch, fail), torch.is_grad_enabled()


@case
def reused_context(torch):
    mode = torch.no_grad()
    log = []
    for _ in range(2):
        with mode:
            log.append(torch.is_grad_enabled())
        log.append(torch.is_grad_enabled())
    return log


@case
def creation_under_no_grad(torch):
    with torch.no_grad():
        x = torch.ones(2, requires_grad=True)
    return x, (x * 2).requires_grad


@case
def parameters_change_under_no_grad(torch):
    x = leaf(torch)
    with torch.no_grad():
        x -= 0.5
        x[0] = 7
    return x, x.is_leaf


@case
def view_made_under_no_grad(torch):
    x = leaf(torch) * 1
    with torch.no_grad():
        v = x[:1]
    return attempt(torch, lambda: v.mul_(2))


@case
def view_of_leaf_made_under_no_grad_written_there(torch):
    x = leaf(torch)
    with torch.no_grad():
        v = x.view(2)
        v.mul_(2)
    return x


@case
def inference_false(torch):
    with torch.inference_mode(False):
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()


@case
def backward_under_no_grad(torch):
    x = leaf(torch)
    y = (x * x).sum()
    with torch.no_grad():
        y.backward()
    return x.grad


@case
def text_of_modes(torch):
    return str(torch.set_grad_enabled(True)).split(".")[-1]


@case
def decorated_class_warns(torch):
    @torch.no_grad()
    class Thing:
        def __init__(self):
            self.mode = torch.is_grad_enabled()

    return Thing().mode
