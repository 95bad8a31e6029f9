"""Entry of the bulk worker process: ``python -m penstock_server.engines.worker_main``."""

from __future__ import annotations

import os
import signal
import sys


def lower_priority() -> None:
    """Lets this process run only in cycles that nobody else wants, where the system can do that."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


def main() -> None:
    """Runs the lanes until the server closes their sockets."""
    # Ctrl-C in a terminal reaches the whole process group; the server ends this process when it has drained.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lower_priority()
    # Imported after that, because libraries start threads when they are loaded, which inherit the priority.
    from penstock_server.engines.worker import serve_lanes

    serve_lanes(sys.argv[1:])


if __name__ == "__main__":
    main()
