"""``torch._dynamo``: the private names that programs use all the same."""

from flambeau._dynamo import config, eval_frame, exc, utils
from flambeau.capture.api import (
    allow_in_graph,
    assume_constant_result,
    disable,
    disallow_in_graph,
    forbid_in_graph,
    graph_break,
    is_compiling,
    list_backends,
    mark_dynamic,
    mark_static,
    mark_static_address,
    mark_unbacked,
    maybe_mark_dynamic,
    reset,
)
from flambeau.capture.api import compile as optimize
from flambeau.capture.module import OptimizedModule
