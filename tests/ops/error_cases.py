"""Mistakes that users make; each function raises, given PyTorch's module or flambeau."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CASES: dict[str, Callable[[Any], Any]] = {}


def case(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Enters a mistake in the table under its function's name."""
    CASES[function.__name__] = function
    return function


def outcome(call: Callable[[Any], Any], torch: Any) -> list[str]:
    """The type's name and the first line of the message that the mistake is answered with."""
    try:
        call(torch)
    except Exception as error:
        return [type(error).__name__, str(error).split("\n")[0]]
    return ["", "no error"]


# -- shapes --------------------------------------------------------------------------------------


@case
def add_of_shapes_that_do_not_broadcast(torch):
    return torch.ones(2, 3) + torch.ones(2, 4)


@case
def in_place_add_that_would_grow(torch):
    return torch.ones(3).add_(torch.ones(2, 3))


@case
def mm_of_inner_sizes(torch):
    return torch.mm(torch.ones(2, 3), torch.ones(2, 3))


@case
def mm_of_a_vector(torch):
    return torch.mm(torch.ones(2, 3), torch.ones(3))


@case
def matmul_of_inner_sizes(torch):
    return torch.ones(2, 3) @ torch.ones(4, 5)


@case
def matmul_of_vector_sizes(torch):
    return torch.ones(2) @ torch.ones(3)


@case
def matmul_of_a_scalar(torch):
    return torch.matmul(torch.tensor(2.0), torch.ones(3))


@case
def matmul_of_batches(torch):
    return torch.ones(2, 3, 4) @ torch.ones(3, 4, 5)


@case
def bmm_of_batches(torch):
    return torch.bmm(torch.ones(2, 3, 4), torch.ones(3, 4, 5))


@case
def bmm_of_matrices(torch):
    return torch.bmm(torch.ones(3, 4), torch.ones(4, 5))


@case
def mv_of_sizes(torch):
    return torch.mv(torch.ones(3, 4), torch.ones(5))


@case
def dot_of_sizes(torch):
    return torch.dot(torch.ones(3), torch.ones(4))


@case
def linear_module_of_other_features(torch):
    return torch.nn.Linear(10, 2)(torch.ones(4, 8))


@case
def linear_function_of_other_features(torch):
    return torch.nn.functional.linear(torch.ones(4, 8), torch.ones(2, 10))


@case
def cat_of_other_sizes(torch):
    return torch.cat([torch.ones(2, 3), torch.ones(2, 4)])


@case
def cat_of_other_ranks(torch):
    return torch.cat([torch.ones(2, 3), torch.ones(2)])


@case
def cat_of_nothing(torch):
    return torch.cat([])


@case
def stack_of_other_sizes(torch):
    return torch.stack([torch.ones(2), torch.ones(3)])


@case
def view_of_another_size(torch):
    return torch.ones(2, 3).view(4, 2)


@case
def view_with_a_rest_that_does_not_divide(torch):
    return torch.ones(2, 3).view(4, -1)


@case
def view_with_two_rests(torch):
    return torch.ones(2, 3).view(-1, -1)


@case
def view_of_a_transposed_tensor(torch):
    return torch.ones(2, 3).t().view(6)


@case
def reshape_of_another_size(torch):
    return torch.ones(2, 3).reshape(7)


@case
def expand_of_a_size(torch):
    return torch.ones(2, 3).expand(2, 4)


@case
def expand_to_fewer_dimensions(torch):
    return torch.ones(2, 3).expand(3)


@case
def permute_of_fewer_dimensions(torch):
    return torch.ones(2, 3, 4).permute(0, 1)


@case
def permute_of_a_repeated_dimension(torch):
    return torch.ones(2, 3).permute(0, 0)


@case
def transpose_of_a_missing_dimension(torch):
    return torch.ones(2, 3).transpose(0, 2)


@case
def t_of_three_dimensions(torch):
    return torch.ones(2, 3, 4).t()


@case
def squeeze_of_a_missing_dimension(torch):
    return torch.ones(2, 3).squeeze(4)


@case
def unsqueeze_of_a_far_dimension(torch):
    return torch.ones(2, 3).unsqueeze(5)


@case
def split_of_sizes(torch):
    return torch.ones(5).split([2, 2])


@case
def conv2d_of_other_channels(torch):
    return torch.nn.Conv2d(3, 8, 3)(torch.ones(1, 1, 8, 8))


@case
def conv2d_of_two_dimensions(torch):
    return torch.nn.Conv2d(3, 8, 3)(torch.ones(8, 8))


@case
def conv2d_of_a_larger_kernel(torch):
    return torch.nn.Conv2d(1, 1, 5)(torch.ones(1, 1, 3, 3))


@case
def max_pool_of_a_larger_window(torch):
    return torch.nn.functional.max_pool2d(torch.ones(1, 1, 2, 2), 5)


@case
def batch_norm_of_other_channels(torch):
    return torch.nn.BatchNorm2d(4)(torch.ones(2, 3, 5, 5))


@case
def batch_norm_of_two_dimensions(torch):
    return torch.nn.BatchNorm2d(4)(torch.ones(2, 4))


@case
def batch_norm_of_one_value_per_channel(torch):
    return torch.nn.BatchNorm1d(4)(torch.ones(1, 4))


@case
def layer_norm_of_another_shape(torch):
    return torch.nn.LayerNorm(5)(torch.ones(2, 4))


@case
def where_of_shapes(torch):
    return torch.where(torch.ones(3) > 0, torch.ones(2), torch.zeros(3))


# -- types ---------------------------------------------------------------------------------------


@case
def mm_of_types(torch):
    return torch.mm(torch.ones(2, 2), torch.ones(2, 2).double())


@case
def linear_of_integers(torch):
    return torch.nn.Linear(3, 2)(torch.ones(4, 3).long())


@case
def conv2d_of_doubles(torch):
    return torch.nn.Conv2d(1, 1, 3)(torch.ones(1, 1, 5, 5).double())


@case
def mean_of_integers(torch):
    return torch.arange(4).mean()


@case
def in_place_division_of_integers(torch):
    return torch.arange(4).div_(2)


@case
def in_place_add_of_a_float_to_integers(torch):
    return torch.arange(4).add_(torch.ones(4))


@case
def softmax_of_integers(torch):
    return torch.arange(4).softmax(0)


@case
def requires_grad_of_integers(torch):
    return torch.arange(4).requires_grad_()


@case
def tensor_of_integers_that_requires_grad(torch):
    return torch.tensor([1, 2], requires_grad=True)


@case
def negation_of_a_mask(torch):
    return -(torch.ones(2) > 0)


@case
def difference_of_masks(torch):
    return (torch.ones(2) > 0) - (torch.ones(2) > 0)


@case
def embedding_of_floats(torch):
    return torch.nn.Embedding(4, 2)(torch.ones(3))


@case
def cross_entropy_of_float_classes(torch):
    return torch.nn.functional.cross_entropy(torch.ones(3, 4), torch.ones(3))


@case
def gather_of_float_indices(torch):
    return torch.ones(3).gather(0, torch.ones(2))


@case
def masked_fill_of_a_float_mask(torch):
    return torch.ones(3).masked_fill(torch.ones(3), 0)


@case
def index_by_a_float(torch):
    return torch.ones(3)[1.5]


@case
def dot_of_types(torch):
    return torch.dot(torch.ones(3), torch.ones(3).long())


# -- indices -------------------------------------------------------------------------------------


@case
def index_out_of_range(torch):
    return torch.ones(3)[3]


@case
def too_many_indices(torch):
    return torch.ones(3)[0, 0]


@case
def index_of_a_scalar(torch):
    return torch.tensor(1.0)[0]


@case
def index_tensor_out_of_range(torch):
    return torch.ones(3)[torch.tensor([0, 5])].tolist()


@case
def mask_of_another_size(torch):
    return torch.ones(3)[torch.ones(4) > 0]


@case
def index_select_out_of_range(torch):
    return torch.ones(3).index_select(0, torch.tensor([4])).tolist()


@case
def gather_out_of_range(torch):
    return torch.ones(3).gather(0, torch.tensor([4])).tolist()


@case
def scatter_out_of_range(torch):
    return torch.ones(3).scatter(0, torch.tensor([4]), 1.0).tolist()


@case
def embedding_out_of_range(torch):
    return torch.nn.Embedding(4, 2)(torch.tensor([4])).tolist()


@case
def cross_entropy_class_out_of_range(torch):
    return torch.nn.functional.cross_entropy(torch.ones(2, 3), torch.tensor([0, 3])).item()


@case
def nll_loss_of_other_batches(torch):
    return torch.nn.functional.nll_loss(torch.ones(2, 3), torch.tensor([0, 1, 2]))


@case
def cross_entropy_of_other_batches(torch):
    return torch.nn.functional.cross_entropy(torch.ones(2, 3), torch.tensor([0, 1, 2]))


@case
def binary_cross_entropy_of_logits(torch):
    return torch.nn.functional.binary_cross_entropy(torch.tensor([2.0]), torch.ones(1)).item()


@case
def binary_cross_entropy_of_shapes(torch):
    return torch.nn.functional.binary_cross_entropy(torch.ones(2, 1), torch.ones(2))


@case
def binary_cross_entropy_with_logits_of_shapes(torch):
    return torch.nn.functional.binary_cross_entropy_with_logits(torch.ones(2, 1), torch.ones(2))


@case
def sum_over_a_missing_dimension(torch):
    return torch.ones(2, 3).sum(2)


@case
def softmax_over_a_missing_dimension(torch):
    return torch.ones(2, 3).softmax(3)


@case
def argmax_of_nothing(torch):
    return torch.ones(0).argmax()


@case
def max_of_nothing(torch):
    return torch.ones(0).max()


@case
def topk_of_too_many(torch):
    return torch.ones(3).topk(5)


@case
def item_of_several(torch):
    return torch.ones(3).item()


@case
def truth_of_several(torch):
    return bool(torch.ones(3))


@case
def iteration_over_a_scalar(torch):
    return list(torch.tensor(1.0))


@case
def length_of_a_scalar(torch):
    return len(torch.tensor(1.0))


# -- arguments -----------------------------------------------------------------------------------


@case
def unknown_keyword(torch):
    return torch.nn.functional.relu(torch.ones(3), nonsense=True)


@case
def unknown_keyword_of_a_module(torch):
    return torch.nn.Linear(3, 2, biass=False)


@case
def text_for_a_tensor(torch):
    return torch.relu("a")


@case
def list_for_a_tensor(torch):
    return torch.relu([1.0])


@case
def none_for_a_module(torch):
    return torch.nn.Sequential(None)


@case
def negative_size(torch):
    return torch.zeros(-1)


@case
def ragged_list(torch):
    return torch.tensor([[1, 2], [3]])


@case
def text_as_data(torch):
    return torch.tensor("abc")


@case
def dropout_of_a_large_probability(torch):
    return torch.nn.Dropout(1.5)


@case
def negative_learning_rate(torch):
    return torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=-1.0)


@case
def optimizer_of_nothing(torch):
    return torch.optim.Adam([])


@case
def optimizer_of_a_tensor(torch):
    return torch.optim.Adam(torch.ones(1, requires_grad=True))


@case
def state_of_another_module(torch):
    return torch.nn.Linear(3, 2).load_state_dict({"weights": torch.ones(2, 3)})


@case
def missing_attribute_of_a_module(torch):
    return torch.nn.Linear(3, 2).weigth


@case
def missing_attribute_of_a_tensor(torch):
    return torch.ones(2).nonsense


@case
def multinomial_of_negative_weights(torch):
    return torch.multinomial(torch.tensor([-1.0, 2.0]), 1).item()


# -- autograd ------------------------------------------------------------------------------------


@case
def write_into_a_leaf(torch):
    torch.ones(3, requires_grad=True).add_(1)


@case
def write_into_a_view_of_a_leaf(torch):
    torch.ones(3, requires_grad=True)[0] = 2.0


@case
def write_into_an_expanded_tensor(torch):
    torch.ones(1).expand(3).add_(1)


@case
def write_between_forward_and_backward(torch):
    x = torch.ones(3, requires_grad=True)
    y = x.exp()
    y.add_(1)
    y.sum().backward()


@case
def backward_twice(torch):
    x = torch.ones(3, requires_grad=True)
    y = (x * x).sum()
    y.backward()
    y.backward()


@case
def backward_of_a_vector(torch):
    (torch.ones(3, requires_grad=True) * 2).backward()


@case
def backward_of_a_constant(torch):
    torch.ones(3).sum().backward()


@case
def backward_with_a_gradient_of_another_shape(torch):
    (torch.ones(3, requires_grad=True) * 2).backward(torch.ones(2))


@case
def gradient_of_an_unused_input(torch):
    x, y = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    torch.autograd.grad(x * 2, y)


@case
def gradient_without_history(torch):
    x = torch.ones(1)
    torch.autograd.grad(x * 2, x)


@case
def numpy_of_a_tensor_that_requires_grad(torch):
    return torch.ones(1, requires_grad=True).numpy()


@case
def requires_grad_of_a_result_cleared(torch):
    y = torch.ones(1, requires_grad=True) * 2
    y.requires_grad = False


@case
def out_of_a_tensor_that_requires_grad(torch):
    torch.add(torch.ones(1, requires_grad=True), 1, out=torch.zeros(1))


@case
def gradient_assigned_of_another_shape(torch):
    torch.ones(3, requires_grad=True).grad = torch.ones(2)


@case
def gradient_assigned_of_another_type(torch):
    torch.ones(3, requires_grad=True).grad = torch.ones(3).double()


@case
def gradient_assigned_that_is_no_tensor(torch):
    torch.ones(3, requires_grad=True).grad = 1.0


@case
def deepcopy_of_a_result(torch):
    import copy

    copy.deepcopy(torch.ones(3, requires_grad=True) * 2)


@case
def resize_of_a_tensor_that_requires_grad(torch):
    torch.ones(3, requires_grad=True).resize_(2)


@case
def detach_in_place_of_a_view(torch):
    torch.ones(3)[0:2].detach_()
