"""Keeping transformers, and what it imports, off the terminal."""

import logging as standard_logging


def quiet_transformers() -> None:
    """Keep the progress bars and advice of transformers off the terminal; langadapt reports for itself."""
    quiet_torchao()
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def quiet_torchao() -> None:
    """Keep torchao, which transformers imports where it is installed, from telling what libraries are not there."""
    for name in ("torchao", "torch.utils._pytree"):
        standard_logging.getLogger(name).setLevel(standard_logging.ERROR)
