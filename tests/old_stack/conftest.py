"""These tests run in .venv-old (`make test-old`) alone."""

import ipywidgets

collect_ignore = [] if ipywidgets.__version__.startswith("7.") else ["test_kernel.py"]
