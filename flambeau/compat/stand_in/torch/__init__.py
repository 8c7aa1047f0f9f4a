"""What a child process of a program run by flambeau finds when it imports torch.

It puts flambeau in its own place. A process of another interpreter (a tool with an environment and
perhaps a PyTorch of its own) only inherited the search path: there it steps aside.
"""

import importlib
import importlib.util
import os
import sys

folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.modules.pop(__name__)

# Not read through flambeau's configuration: whether to import flambeau at all is the question.
if os.environ.get("FLAMBEAU_AS_TORCH") == sys.prefix:
    if importlib.util.find_spec("flambeau") is None:
        sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(folder))))
    importlib.import_module("flambeau.compat.torch_alias").install_as_torch()
else:
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    importlib.import_module(__name__)
