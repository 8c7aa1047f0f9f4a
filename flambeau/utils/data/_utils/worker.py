"""``torch.utils.data._utils.worker``."""

from flambeau.utils.data.worker import WorkerInfo as WorkerInfo
from flambeau.utils.data.worker import get_worker_info as get_worker_info
