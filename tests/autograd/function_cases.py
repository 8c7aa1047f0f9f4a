"""Programs about ``torch.autograd.Function``; see `tests/semantics.py`."""

from tests.semantics import Cases, attempt

CASES = Cases()
case = CASES.add


def leaf(torch, *values):
    return torch.tensor(values or (1.0, 2.0), requires_grad=True)


def square(torch):
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return 2 * x * grad

    return Square


@case
def square_and_gradient(torch):
    x = leaf(torch)
    y = square(torch).apply(x)
    y.sum().backward()
    return y, x.grad, type(y.grad_fn).__name__, y.grad_fn.name()


@case
def double_backward(torch):
    x = leaf(torch)
    (g,) = torch.autograd.grad(square(torch).apply(x).sum(), x, create_graph=True)
    return g, torch.autograd.grad(g.sum(), x)


@case
def second_backward(torch):
    x = leaf(torch)
    y = square(torch).apply(x).sum()
    y.backward()
    return attempt(torch, y.backward)


@case
def saved_input_changed(torch):
    x = leaf(torch)
    z = x * 1
    y = square(torch).apply(z)
    z.add_(1)
    return attempt(torch, lambda: y.sum().backward())


@case
def without_graph(torch):
    y = square(torch).apply(torch.ones(2))
    with torch.no_grad():
        z = square(torch).apply(leaf(torch))
    return y, z


@case
def several_outputs_and_none(torch):
    class Two(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, factor, y):
            ctx.factor = factor
            ctx.flags = ctx.needs_input_grad
            return x * factor, y + x

        @staticmethod
        def backward(ctx, a, b):
            seen.append([ctx.flags, a.tolist(), b.tolist()])
            return a * ctx.factor + b, None, None

    seen = []
    x = leaf(torch)
    p, q = Two.apply(x, 3.0, torch.ones(2))
    p.sum().backward()
    return p, q, x.grad, seen, [p.output_nr, q.output_nr]


@case
def gradients_not_materialized(torch):
    class Two(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return x * 1, x * 2

        @staticmethod
        def backward(ctx, a, b):
            seen.append([a is None, b is None])
            return b

    seen = []
    x = leaf(torch)
    Two.apply(x)[1].sum().backward()
    return x.grad, seen


@case
def dirty(torch):
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            x.mul_(2)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, grad):
            return grad * 2

    x = leaf(torch)
    y = x * 1
    z = Double.apply(y)
    z.sum().backward()
    return z is y, z, x.grad, attempt(torch, lambda: Double.apply(leaf(torch)))


@case
def not_differentiable(torch):
    class Sorted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            order = x.argsort()
            kept = x * 1
            also = x * 2
            ctx.mark_non_differentiable(order, also)
            return kept, order, also

        @staticmethod
        def backward(ctx, a, b, c):
            seen.append([b.tolist(), c.tolist()])
            return a

    seen = []
    x = leaf(torch)
    a, b, c = Sorted.apply(x)
    a.sum().backward()
    return a, b, c, x.grad, seen


@case
def returned_input(torch):
    class Same(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, grad):
            return grad * 5

    x = leaf(torch)
    y = Same.apply(x)
    y.sum().backward()
    return y is x, y, x.grad, y.data_ptr() == x.data_ptr()


@case
def returned_view_of_input(torch):
    class First(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view(2, 1)

        @staticmethod
        def backward(ctx, grad):
            return grad.view(2) * 3

    x = leaf(torch)
    y = First.apply(x)
    y.sum().backward()
    return y, x.grad


@case
def separate_setup(torch):
    class Power(torch.autograd.Function):
        @staticmethod
        def forward(x, n):
            return x**n

        @staticmethod
        def setup_context(ctx, inputs, output):
            x, n = inputs
            ctx.save_for_backward(x, output)
            ctx.n = n

        @staticmethod
        def backward(ctx, grad):
            x, result = ctx.saved_tensors
            return grad * ctx.n * x ** (ctx.n - 1), None

    x = leaf(torch)
    y = Power.apply(x, 3)
    y.sum().backward()
    return y, x.grad


@case
def saved_output(torch):
    class Exp(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            result = x.exp()
            ctx.save_for_backward(result)
            return result

        @staticmethod
        def backward(ctx, grad):
            (result,) = ctx.saved_tensors
            return grad * result

    x = leaf(torch)
    y = Exp.apply(x)
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), x)
    return y, g, h


@case
def once_differentiable(torch):
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * 3 * x * x

    x = leaf(torch)
    (g,) = torch.autograd.grad(Cube.apply(x).sum(), x, create_graph=True)
    plain = torch.autograd.grad(Cube.apply(x).sum(), x)
    return g.detach(), plain, attempt(torch, lambda: torch.autograd.grad(g.sum(), x))


@case
def wrong_number_of_gradients(torch):
    def returning(count):
        class Wrong(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, y):
                return x * y

            @staticmethod
            def backward(ctx, grad):
                return tuple([grad] * count)

        return Wrong

    results = [
        attempt(torch, lambda n=n: returning(n).apply(leaf(torch), leaf(torch)).sum().backward())
        for n in (1, 2, 3)
    ]

    class Extra(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            return grad, None, None

    x = leaf(torch)
    Extra.apply(x).sum().backward()
    return results, x.grad


@case
def wrong_shape_of_gradient(torch):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            return torch.ones(3)

    return attempt(torch, lambda: Wrong.apply(leaf(torch)).sum().backward())


@case
def wrong_type_of_gradient(torch):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            return 5.0

    return attempt(torch, lambda: Wrong.apply(leaf(torch)).sum().backward())


@case
def wrong_type_of_result(torch):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return "text"

    return attempt(torch, lambda: Wrong.apply(leaf(torch)))


@case
def tuple_with_other_values(torch):
    class Mixed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2, "text", 5

        @staticmethod
        def backward(ctx, grad, *rest):
            return grad * 2

    x = leaf(torch)
    y, text, number = Mixed.apply(x)
    y.sum().backward()
    return text, number, x.grad


@case
def missing_parts(torch):
    class Nothing(torch.autograd.Function):
        pass

    class NoBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

    return [
        attempt(torch, lambda: Nothing.apply(leaf(torch))),
        attempt(torch, lambda: NoBackward.apply(leaf(torch)).sum().backward()),
        attempt(torch, lambda: NoBackward()(leaf(torch))),
    ]


@case
def save_for_backward_of_foreign_value(torch):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(5)
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            return grad

    return attempt(torch, lambda: Wrong.apply(leaf(torch)))


@case
def saved_none(torch):
    class Saves(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x, None)
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            seen.append(ctx.saved_tensors[1] is None)
            return grad

    seen = []
    Saves.apply(leaf(torch)).sum().backward()
    return seen


@case
def graph_is_off_inside(torch):
    class Looks(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            seen.append([torch.is_grad_enabled(), (x * 2).requires_grad, x.requires_grad])
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            seen.append([torch.is_grad_enabled(), grad.requires_grad])
            return grad

    seen = []
    x = leaf(torch)
    torch.autograd.grad(Looks.apply(x).sum(), x)
    torch.autograd.grad(Looks.apply(x).sum(), x, create_graph=True)
    return seen


@case
def needs_input_grad_in_backward(torch):
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, y, flag=True):
            ctx.save_for_backward(x, y)
            return x * y

        @staticmethod
        def backward(ctx, grad):
            x, y = ctx.saved_tensors
            seen.append(ctx.needs_input_grad)
            return grad * y, grad * x if ctx.needs_input_grad[1] else None, None

    seen = []
    x = leaf(torch)
    Product.apply(x, torch.ones(2), False).sum().backward()
    return seen, x.grad


@case
def straight_through(torch):
    class Sign(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sign()

        @staticmethod
        def backward(ctx, grad):
            return grad.clamp(-1, 1)

    x = leaf(torch, -0.5, 3.0)
    (Sign.apply(x) * torch.tensor([5.0, 0.25])).sum().backward()
    return x.grad


@case
def gradient_none(torch):
    class Stops(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            return None

    x = leaf(torch)
    Stops.apply(x).sum().backward()
    return x.grad


@case
def names_and_next_functions(torch):
    y = square(torch).apply(leaf(torch))
    return (
        [[n.name(), k] for n, k in y.grad_fn.next_functions],
        str(y.grad_fn).split(" ")[0].split(".")[-1],
        repr(y),
    )


@case
def attributes_of_context_are_on_the_node(torch):
    class Keeps(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.note = "kept"
            ctx.save_for_backward(x)
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            return grad

    y = Keeps.apply(leaf(torch))
    return y.grad_fn.note, y.grad_fn.saved_tensors


@case
def nested_functions(torch):
    Square = square(torch)

    class Outer(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            with torch.enable_grad():
                inner = x.detach().requires_grad_()
                result = Square.apply(inner)
            ctx.save_for_backward(inner, result)
            return result.detach()

        @staticmethod
        def backward(ctx, grad):
            inner, result = ctx.saved_tensors
            with torch.enable_grad():
                return torch.autograd.grad(result, inner, grad, retain_graph=True)

    x = leaf(torch)
    Outer.apply(x).sum().backward()
    return x.grad


@case
def vjp_name(torch):
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def vjp(ctx, grad):
            return grad * 2

    x = leaf(torch)
    Twice.apply(x).sum().backward()
    return x.grad


@case
def checked(torch):
    x = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    apply = square(torch).apply
    return torch.autograd.gradcheck(apply, (x,)), torch.autograd.gradgradcheck(apply, (x,))
