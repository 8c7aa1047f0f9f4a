"""Random functions and generators, bit for bit."""

from tests.semantics import Cases, attempt

CASES = Cases()
case = CASES.add


def setup(torch):
    return {
        "x": torch.arange(6.0).reshape(2, 3),
        "i": torch.arange(3),
        "t": torch.tensor,
        "F": torch.nn.functional,
        "p": torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]]),
        "G": lambda seed: torch.Generator().manual_seed(seed),
    }


CASES.expressions(
    setup,
    """
    torch.rand(5)
    torch.rand(2, 3)
    torch.rand((2, 3))
    torch.rand(20).sum().item()
    torch.rand(3, dtype=torch.float64)
    torch.rand(3, dtype=torch.float16)
    torch.rand(3, dtype=torch.bfloat16)
    torch.rand(3, dtype=torch.int64)
    torch.rand(0)
    torch.rand(())
    torch.rand(2, requires_grad=True)
    torch.rand(2, generator=G(5))
    torch.rand(3, out=torch.empty(3))
    torch.rand(-1)
    torch.randn(5)
    torch.randn(16)
    torch.randn(17)
    torch.randn(2, 20)
    torch.randn(3, dtype=torch.float64)
    torch.randn(20, dtype=torch.float64)
    torch.randn(3, dtype=torch.float16)
    torch.randn(20, dtype=torch.bfloat16)
    torch.randn(3, dtype=torch.int64)
    torch.randn(3, generator=G(7))
    torch.randn(2, 3, requires_grad=True)
    torch.randn(20, out=torch.empty(20))
    torch.rand_like(x)
    torch.rand_like(x.t())
    torch.randn_like(x)
    torch.randn_like(x.t())
    torch.randn_like(torch.ones(5, 4).t())
    torch.rand_like(x, dtype=torch.float64)
    torch.randint(10, (5,))
    torch.randint(3, 10, (2, 3))
    torch.randint(low=3, high=10, size=(4,))
    torch.randint(high=10, size=(4,))
    torch.randint(10, size=(4,))
    torch.randint(0, 2**40, (4,))
    torch.randint(-5, 5, (6,), dtype=torch.int32)
    torch.randint(0, 2, (6,), dtype=torch.bool)
    torch.randint(0, 9, (6,), dtype=torch.uint8)
    torch.randint(0, 9, (6,), dtype=torch.float32)
    torch.randint(5, 5, (2,))
    torch.randint(5, 3, (2,))
    torch.randint(0, 300, (2,), dtype=torch.uint8)
    torch.randint(10, (2,), generator=G(3))
    torch.randint(10)
    torch.randint_like(x, 10)
    torch.randint_like(i, 3, 10)
    torch.randperm(10)
    torch.randperm(1)
    torch.randperm(0)
    torch.randperm(5, dtype=torch.int32)
    torch.randperm(5, dtype=torch.float32)
    torch.randperm(6, generator=G(2))
    torch.randperm(-1)
    torch.normal(0, 1, (5,))
    torch.normal(2.0, 3.0, size=(2, 3))
    torch.normal(x, 2.0)
    torch.normal(0.0, x + 1)
    torch.normal(x, x + 1)
    torch.normal(x, torch.ones(3))
    torch.normal(0, -1, (2,))
    torch.normal(x, -1.0)
    torch.normal(x, -x)
    torch.normal(0, 1, (20,), dtype=torch.float64)
    torch.normal(mean=torch.zeros(3), std=torch.ones(3))
    torch.normal(mean=1.0, std=torch.ones(3))
    torch.normal(torch.arange(3.0), generator=G(4))
    torch.bernoulli(p)
    torch.bernoulli(p, 0.5)
    torch.bernoulli(torch.full((10,), 0.5, dtype=torch.float64))
    torch.bernoulli(x)
    torch.bernoulli(i)
    p.bernoulli()
    torch.empty(5).bernoulli_()
    torch.empty(5).bernoulli_(0.3)
    torch.empty(2, 3).bernoulli_(p)
    torch.empty(5, dtype=torch.int64).bernoulli_(0.5)
    torch.empty(5).bernoulli_(1.5)
    torch.empty(5).uniform_()
    torch.empty(5).uniform_(-1, 1)
    torch.empty(5).uniform_(2, 1)
    torch.empty(5, dtype=torch.int64).uniform_()
    torch.empty(5).normal_()
    torch.empty(20).normal_(3, 0.5)
    torch.empty(5).normal_(mean=1, std=2)
    torch.empty(5).normal_(0, -1)
    torch.empty(5).exponential_()
    torch.empty(5).exponential_(2.5)
    torch.empty(5).exponential_(-1)
    torch.empty(5).cauchy_()
    torch.empty(5).log_normal_()
    torch.empty(5).geometric_(0.3)
    torch.empty(5).geometric_(1.5)
    torch.empty(5, dtype=torch.int64).random_()
    torch.empty(5).random_()
    torch.empty(5).random_(10)
    torch.empty(5, dtype=torch.int64).random_(3, 9)
    torch.empty(5, dtype=torch.uint8).random_()
    torch.empty(5, dtype=torch.bool).random_()
    torch.empty(5).random_(5, 5)
    torch.zeros(3, 2).t().uniform_()
    torch.zeros(3, 2).t().normal_()
    torch.zeros(4, 10).t().normal_()
    torch.zeros(3, 4)[:, ::2].uniform_()
    torch.zeros(3, 4)[:, ::2].normal_()
    torch.zeros(3, 40)[:, ::2].normal_()
    torch.zeros(3, 4)[1].normal_()
    torch.zeros(1, 3).expand(2, 3).uniform_()
    torch.multinomial(p, 2)
    torch.multinomial(p, 1)
    torch.multinomial(p, 5, replacement=True)
    torch.multinomial(p[0], 2)
    torch.multinomial(p[0], 1, True)
    torch.multinomial(p.double(), 3)
    torch.multinomial(p, 4)
    torch.multinomial(p, 0)
    torch.multinomial(-p, 1)
    torch.multinomial(p * 0, 1)
    torch.multinomial(i, 1)
    torch.multinomial(t([1.0, float("nan")]), 1)
    torch.multinomial(torch.ones(2, 2, 2), 1)
    torch.multinomial(p, 2, generator=G(1))
    F.dropout(torch.ones(10))
    F.dropout(torch.ones(10), 0.3)
    F.dropout(torch.ones(10), 0.3, False)
    F.dropout(torch.ones(2, 5).t(), 0.5)
    F.dropout(torch.ones(3), 0.0)
    F.dropout(torch.ones(3), 1.0)
    F.dropout(torch.ones(3), 1.5)
    F.dropout(torch.ones(6, requires_grad=True), 0.5)
    F.dropout(torch.ones(6), 0.5, True, True)
    F.dropout1d(torch.ones(2, 3, 4))
    F.dropout2d(torch.ones(2, 3, 2, 2))
    F.dropout3d(torch.ones(1, 3, 1, 2, 2))
    F.alpha_dropout(torch.ones(6), 0.5, True)
    F.feature_alpha_dropout(torch.ones(2, 3, 2), 0.5, True)
    torch.dropout(torch.ones(6), 0.5, True)
    F.gumbel_softmax(torch.zeros(2, 3))
    F.gumbel_softmax(torch.zeros(2, 3), hard=True)
    torch.initial_seed()
    torch.default_generator.initial_seed()
    torch.Generator().initial_seed()
    torch.Generator().device
    torch.get_rng_state().shape
    torch.get_rng_state().dtype
    torch.get_rng_state().sum()
    torch.set_rng_state([1, 2])
    torch.set_rng_state(torch.zeros(3))
    torch.set_rng_state(torch.zeros(3, dtype=torch.uint8))
    torch.manual_seed("a")
    torch.manual_seed(-1).initial_seed()
    torch.manual_seed(2**64).initial_seed()
    torch.manual_seed(2**63).initial_seed()
    torch.manual_seed(3.7).initial_seed()
    """,
)


@case
def seeding_repeats(torch):
    torch.manual_seed(3)
    first = torch.rand(3)
    torch.manual_seed(3)
    return first, torch.rand(3), torch.rand(3), torch.manual_seed(4) is torch.default_generator


@case
def states(torch):
    torch.manual_seed(1)
    torch.randn(3)
    state = torch.get_rng_state()
    first = torch.randn(5)
    torch.set_rng_state(state)
    return first, torch.randn(5), torch.rand(2)


@case
def forked(torch):
    torch.manual_seed(1)
    with torch.random.fork_rng():
        inside = torch.rand(2)
        torch.manual_seed(99)
    after = torch.rand(2)
    with torch.random.fork_rng(enabled=False):
        torch.rand(2)
    return inside, after, torch.rand(2)


@case
def generators_are_independent(torch):
    torch.manual_seed(0)
    g, h = torch.Generator(), torch.Generator()
    g.manual_seed(5)
    h.manual_seed(5)
    a = torch.rand(3, generator=g)
    b = torch.rand(3)
    c = torch.rand(3, generator=h)
    return a, b, c, g.initial_seed(), type(g.seed()).__name__


@case
def generator_state(torch):
    g = torch.Generator().manual_seed(8)
    torch.randn(20, generator=g)
    state = g.get_state()
    a = torch.randn(3, generator=g)
    g.set_state(state)
    h = g.clone_state()
    return a, torch.randn(3, generator=g), torch.randn(3, generator=h)


@case
def mixed_sequence(torch):
    torch.manual_seed(11)
    return [
        torch.rand(3),
        torch.randn(3),
        torch.randn(17),
        torch.randint(5, (4,)),
        torch.randperm(5),
        torch.empty(3).exponential_(),
        torch.bernoulli(torch.full((4,), 0.5)),
        torch.randn(1),
        torch.nn.functional.dropout(torch.ones(5)),
        torch.normal(0.0, torch.ones(2)),
        torch.rand(2),
    ]


@case
def seed_is_unpredictable(torch):
    return type(torch.seed()).__name__, torch.seed() != torch.seed()


@case
def drawn_at_the_call(torch):
    torch.manual_seed(0)
    a = torch.rand(2)
    b = a * 2
    torch.manual_seed(0)
    return b, torch.rand(2)


@case
def in_place_draw_on_leaf(torch):
    x = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        x.uniform_()
    return x, attempt(torch, lambda: torch.ones(2, requires_grad=True).uniform_())


@case
def draw_on_nonleaf_cuts_history(torch):
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    y.normal_()
    y.sum().backward()
    return y, x.grad


@case
def gradient_through_dropout(torch):
    x = torch.ones(8, requires_grad=True)
    y = torch.nn.functional.dropout(x * 3, 0.25)
    y.sum().backward()
    return y, x.grad


@case
def gradient_of_normal(torch):
    mean = torch.zeros(3, requires_grad=True)
    std = torch.ones(3, requires_grad=True)
    return attempt(torch, lambda: torch.normal(mean, std))
