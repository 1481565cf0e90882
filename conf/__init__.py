"""Settings, the command line, the workspace, and the error class for wrong input. Imports no other stage."""

import os

from conf.openmp import let_waiting_threads_sleep

# Here, because every command imports this package before torch.
let_waiting_threads_sleep(os.environ)
